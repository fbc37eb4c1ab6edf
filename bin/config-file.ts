/**
 * Reads `patina.toml`, lays environment variables and flags over it, and validates the whole at
 * once: every error in one go, each with file, key, what was found and what is allowed.
 *
 * Precedence: flag, environment (`PATINA__GOSSIP__ADDR`, then Corrosion's `GOSSIP__ADDR`), file,
 * default.
 * Relative paths count from the config file's folder.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, resolve } from "node:path";
import { parse as parseToml, TomlError } from "smol-toml";
import type { z } from "zod";
import { errorText, PatinaError } from "#base/errors.ts";
import { agentConfigFile, configFile, type PatinaConfig } from "../proxy/config.ts";
import type { Mode } from "../proxy/effective-config.ts";
import { gossipSection, unguardedAddresses } from "../replica/config.ts";
import { insteadOf, removeKey, translateCorrosion } from "./corrosion-config.ts";
import { environmentOverrides, type Override } from "./overrides.ts";

/** A validated config with what identifies it. */
export interface LoadedConfig {
  readonly config: PatinaConfig;
  /** The file it came from, absolute. */
  readonly file: string;
  /** SHA-256 of the effective config, hex. */
  readonly hash: string;
  /** What was left out of a file made for Corrosion, and what stands open; a line each. */
  readonly warnings: readonly string[];
}

/**
 * Loads and validates. Throws `CONFIG_INVALID` with one line per error, or `CONFIG_UNREADABLE`;
 * nothing has been started or written then.
 */
export function loadConfig(options: {
  readonly file: string;
  readonly overrides?: readonly Override[];
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /**
   * `agent` takes a file made for Corrosion as it is: keys that nobody knows, and an API that is
   * open to all, lead to warnings. Default `edge`: these are errors.
   */
  readonly mode?: Mode;
}): LoadedConfig {
  const file = resolve(options.file);
  const overrides = [
    ...environmentOverrides(options.environment ?? {}),
    ...(options.overrides ?? []),
  ];
  const raw = readToml(file);
  const sourceByKey = new Map<string, string>();
  for (const override of overrides) {
    setKey(raw, override.key.split("."), override.value);
    sourceByKey.set(override.key, override.source);
  }
  const warnings = translateCorrosion(raw).map((warning) => `${file}: ${warning}`);
  const isAgent = options.mode === "agent";
  const parse = (): ReturnType<typeof agentConfigFile.safeParse> =>
    (isAgent ? agentConfigFile : configFile).safeParse(raw, { reportInput: true });
  let parsed = parse();
  const isOverride = (name: string): boolean =>
    overrides.some(({ key }) => key === name || key.startsWith(`${name}.`));
  const foreign = (parsed.success ? [] : unknownKeys(parsed.error.issues))
    .map((path) => ({ path, name: path.join(".") }))
    .filter(({ name }) => insteadOf(name) !== null || (isAgent && !isOverride(name)));
  if (foreign.length > 0) {
    for (const { path, name } of foreign) {
      removeKey(raw, path);
      const instead = insteadOf(name);
      const what = instead === null ? "unknown key, left out" : `${OF_CORROSION}: ${instead}`;
      warnings.push(`${sourceByKey.get(name) ?? file}: ${name}: ${what}`);
    }
    parsed = parse();
  }
  if (!parsed.success) {
    throw new PatinaError(
      "CONFIG_INVALID",
      describeIssues(parsed.error.issues, { file, raw, sourceByKey }).join("\n"),
    );
  }
  const config = alone(named(withAbsolutePaths(parsed.data, dirname(file))));
  for (const addr of unguardedAddresses(config.api)) {
    const source = sourceByKey.get("api.addr") ?? file;
    warnings.push(`${source}: api.addr: OPEN TO ALL: whoever reaches ${addr} may read and write`);
  }
  const hash = createHash("sha256").update(JSON.stringify(config)).digest("hex");
  return { config, file, hash, warnings };
}

/** Where evidence and run-time files go: as configured, else `state` beside the database. */
export function stateFolderOf(config: PatinaConfig): string {
  return config.watchdog.state_folder ?? resolve(dirname(config.db.path), "state");
}

function readToml(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new PatinaError(
      "CONFIG_UNREADABLE",
      `${file}: cannot be read: ${errorText(error)}; name another with --config`,
      { cause: error },
    );
  }
  try {
    return parseToml(text) as Record<string, unknown>;
  } catch (error) {
    const place = error instanceof TomlError ? `:${error.line}:${error.column}` : "";
    const reason = errorText(error).split("\n")[0] ?? "";
    throw new PatinaError("CONFIG_INVALID", `${file}${place}: not valid TOML: ${reason}`, {
      cause: error,
    });
  }
}

function setKey(target: Record<string, unknown>, keys: readonly string[], value: unknown): void {
  const [first, ...rest] = keys;
  if (first === undefined) return;
  if (rest.length === 0) {
    target[first] = value;
    return;
  }
  const inner = target[first];
  const next = isTable(inner) ? inner : {};
  target[first] = next;
  setKey(next, rest, value);
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function describeIssues(
  issues: readonly z.core.$ZodIssue[],
  at: { file: string; raw: unknown; sourceByKey: ReadonlyMap<string, string> },
): string[] {
  return issues.flatMap((issue) => {
    const key = issue.path.join(".");
    const place = at.sourceByKey.get(key) ?? at.file;
    if (issue.code === "unrecognized_keys") {
      const inside = key === "" ? "" : `${key}.`;
      return issue.keys.map(
        (one) => `${at.file}: ${inside}${one}: unknown key; remove it or mend its name`,
      );
    }
    const found = valueAt(at.raw, issue.path);
    const what = found === undefined ? "nothing" : JSON.stringify(found);
    return [`${place}: ${key}: found ${what}; allowed: ${allowed(issue)}`];
  });
}

function allowed(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return `a value of type ${issue.expected}`;
    case "invalid_value":
      return issue.values.map((value) => JSON.stringify(value)).join(", ");
    default:
      return issue.message;
  }
}

function valueAt(raw: unknown, path: readonly PropertyKey[]): unknown {
  let value = raw;
  for (const key of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

/** Paths of the keys that no section takes. */
function unknownKeys(issues: readonly z.core.$ZodIssue[]): string[][] {
  return issues.flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => [...issue.path.map(String), key])
      : [],
  );
}

/** With another engine the replica keeps what it is given, and meets nobody. */
function alone(config: PatinaConfig): PatinaConfig {
  if (config.replica.engine === "patina") return config;
  const gossip = gossipSection.parse({ addr: "127.0.0.1:0", plaintext: true, preset: "lan" });
  return { ...config, gossip, replica: { ...config.replica, publish_node: false } };
}

/** A host that was given no name goes by the system's; see `publish_node`. */
function named(config: PatinaConfig): PatinaConfig {
  if (config.replica.node !== "") return config;
  const publish_node = config.replica.publish_node ?? !config.gossip.plaintext;
  const node = hostname()
    .replaceAll(/[^A-Za-z0-9._-]/g, "-")
    .replace(/^[._-]+/, "")
    .slice(0, NAME_CHARACTERS_MAX);
  const name = node === "" ? "host" : node;
  return { ...config, replica: { ...config.replica, node: name, publish_node } };
}

function withAbsolutePaths(config: PatinaConfig, folder: string): PatinaConfig {
  const absolute = (path: string): string => resolve(folder, path);
  const { api, db, gossip, admin, checkpoints, consul, proxy, watchdog } = config;
  const { tls } = gossip;
  const absoluteTls = tls && {
    cert_file: absolute(tls.cert_file),
    key_file: absolute(tls.key_file),
    ...(tls.ca_file === undefined ? {} : { ca_file: absolute(tls.ca_file) }),
    insecure: tls.insecure,
    verify_actor: tls.verify_actor,
    ...(tls.client && {
      client: {
        cert_file: absolute(tls.client.cert_file),
        key_file: absolute(tls.client.key_file),
      },
    }),
  };
  return {
    ...config,
    db: {
      ...db,
      path: absolute(db.path),
      schema_paths: db.schema_paths.map(absolute),
      ...(db.subscriptions_path === undefined
        ? {}
        : { subscriptions_path: absolute(db.subscriptions_path) }),
    },
    gossip: {
      ...gossip,
      compression: withAbsolute(gossip.compression, ["dict_dir", "dict_file"], absolute),
      ...(absoluteTls ? { tls: absoluteTls } : {}),
    },
    checkpoints: /^\w+:\/\//.test(checkpoints.target ?? "")
      ? checkpoints
      : withAbsolute(checkpoints, ["target"], absolute),
    consul: consul.client.tls
      ? {
          ...consul,
          client: {
            ...consul.client,
            tls: withAbsolute(consul.client.tls, ["ca_file", "cert_file", "key_file"], absolute),
          },
        }
      : consul,
    api: api.tls
      ? { ...api, tls: withAbsolute(api.tls, ["cert_file", "key_file", "ca_file"], absolute) }
      : api,
    admin: admin.path === undefined ? admin : { path: absolute(admin.path) },
    proxy: {
      ...proxy,
      upstream_tls: withAbsolute(proxy.upstream_tls, ["ca_file"], absolute),
      tls: {
        ...proxy.tls,
        certificates: proxy.tls.certificates.map((files) =>
          withAbsolute(files, ["cert_file", "key_file"], absolute),
        ),
      },
      ...(proxy.access_log === undefined ? {} : { access_log: absolute(proxy.access_log) }),
    },
    watchdog: {
      ...watchdog,
      ...(watchdog.state_folder === undefined
        ? {}
        : { state_folder: absolute(watchdog.state_folder) }),
    },
  };
}

function withAbsolute<Section extends object>(
  section: Section,
  keys: readonly (keyof Section)[],
  absolute: (path: string) => string,
): Section {
  const found = keys.filter((key) => typeof section[key] === "string");
  return {
    ...section,
    ...Object.fromEntries(found.map((key) => [key, absolute(String(section[key]))])),
  };
}

const OF_CORROSION = "a key of Corrosion's, left out";
/** Of a node's name, as the config takes it. */
const NAME_CHARACTERS_MAX = 63;
