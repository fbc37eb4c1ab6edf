/** Values laid over the config file: `--set key=value` flags and environment variables. */
import { PatinaError } from "#base/errors.ts";
import type { ConfigOverride } from "../proxy/effective-config.ts";

/**
 * One thing to lay over the file. Its source is for messages: `--api-addr`, `PATINA__API__ADDR`.
 */
export type Override = ConfigOverride;

/** Parses the flags; a value that is JSON is taken as such, anything else as text. */
export function overridesFromFlags(flags: readonly string[]): Override[] {
  return flags.map((flag) => {
    const equals = flag.indexOf("=");
    if (equals < 1) {
      throw new PatinaError("USAGE", `--set ${flag}: expected key=value, as in log.level=debug`);
    }
    const key = flag.slice(0, equals);
    return { key, value: jsonOrText(flag.slice(equals + 1)), source: `--set ${key}` };
  });
}

/**
 * `PATINA__GOSSIP__ADDR=x` sets `gossip.addr`, and so does Corrosion's `GOSSIP__ADDR`, which counts
 * less. Without the prefix only names of Corrosion's keys are looked at: the environment has many
 * others, and none of them may keep a replica from starting.
 */
export function environmentOverrides(
  environment: Readonly<Record<string, string | undefined>>,
): Override[] {
  const given = Object.entries(environment).flatMap(([name, text]) =>
    text === undefined ? [] : [{ name, text }],
  );
  const corrosion = given.flatMap(({ name, text }) => {
    const key = KEY_BY_NAME_OF_CORROSION.get(name);
    return key === undefined ? [] : [{ key, value: jsonOrText(text), source: name }];
  });
  const own = given.flatMap(({ name, text }) => {
    if (!name.startsWith(PREFIX)) return [];
    const key = name.slice(PREFIX.length).toLowerCase().replaceAll("__", ".");
    return [{ key, value: jsonOrText(text), source: name }];
  });
  return [...corrosion, ...own];
}

/** JSON where the text looks like it and parses; else the text itself. */
export function jsonOrText(text: string): unknown {
  if (!/^(?:true|false|-?\d+(?:\.\d+)?|\[.*\]|\{.*\}|".*")$/s.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch (error) {
    // Something like `[::]:8787`: starts as a list would, and is a text.
    if (error instanceof SyntaxError) return text;
    throw error;
  }
}

const PREFIX = "PATINA__";

/** The sections of Corrosion's config (protocol reference, section 8.1) with the keys used here. */
const KEYS_OF_CORROSION: Readonly<Record<string, string>> = {
  db: "path schema_paths subscriptions_path",
  api: "addr endpoint_name authz.bearer-token",
  admin: "path",
  gossip: "addr external_addr bootstrap plaintext max_mtu idle_timeout_secs broadcast",
  "gossip.tls": "cert_file key_file ca_file insecure client.cert_file client.key_file",
  "gossip.compression": "enabled level dict_dir dict_file",
  perf: "min_sync_backoff max_sync_backoff",
  telemetry: "prometheus.addr",
};

/** `GOSSIP__ADDR` and the like. */
const KEY_BY_NAME_OF_CORROSION: ReadonlyMap<string, string> = new Map([
  ...Object.entries(KEYS_OF_CORROSION).flatMap(([section, names]) =>
    names.split(" ").map((name) => {
      const key = `${section}.${name}`;
      return [key.toUpperCase().replaceAll(".", "__"), key] as const;
    }),
  ),
  ["API__BIND_ADDR", "api.addr"],
  ["ADMIN__UDS_PATH", "admin.path"],
]);
