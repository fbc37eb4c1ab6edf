/**
 * Where commands find a replica: flags that may stand before or behind the command, as Corrosion's
 * do, and what the config file says where a flag is absent.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { PatinaError } from "#base/errors.ts";
import { joinHostPort, splitHostPort } from "#base/host-port.ts";
import { adminPathOf } from "../proxy/effective-config.ts";
import type { PatinaConfig } from "../proxy/config.ts";
import { apiAddresses, checkpointsSection, type CheckpointsConfig } from "../replica/config.ts";
import type { ApiOptions } from "./api-client.ts";
import { loadConfig, stateFolderOf } from "./config-file.ts";
import type { Override } from "./overrides.ts";

/** The flags of every command. */
export interface GlobalOptions {
  readonly config?: string;
  readonly apiAddr?: string;
  readonly dbPath?: string;
  readonly adminPath?: string;
}

/** The config file that is meant; it need not exist. */
export function configFileOf(options: GlobalOptions): string {
  return options.config ?? "patina.toml";
}

/** The flags as values laid over the config file; paths count from the working folder. */
export function overridesFromGlobals(options: GlobalOptions): Override[] {
  const { apiAddr, dbPath, adminPath } = options;
  const given: readonly (readonly [string, string, string | undefined])[] = [
    ["api.addr", "--api-addr", apiAddr],
    ["db.path", "--db-path", dbPath && resolve(dbPath)],
    ["admin.path", "--admin-path", adminPath && resolve(adminPath)],
  ];
  return given.flatMap(([key, source, value]) =>
    value === undefined ? [] : [{ key, value, source }],
  );
}

/** The HTTP API: the flag, else what the config file says, else the default address. */
export function apiTarget(options: GlobalOptions & { readonly token?: string }): ApiOptions {
  const { apiAddr, config, token } = options;
  if (apiAddr !== undefined) return { apiAddr, ...(token === undefined ? {} : { token }) };
  if (config === undefined && !existsSync(configFileOf(options))) {
    return { apiAddr: DEFAULT_API, ...(token === undefined ? {} : { token }) };
  }
  const { api } = configOf(options);
  const known = token ?? api.authz?.["bearer-token"];
  const [addr = DEFAULT_API] = apiAddresses(api);
  const authorityPem =
    api.tls?.ca_file === undefined ? null : readFileSync(api.tls.ca_file, "utf8");
  return {
    apiAddr: dialable(addr),
    ...(known === undefined ? {} : { token: known }),
    ...(api.tls === undefined ? {} : { authorityPem }),
  };
}

/** Path of the admin socket: the flag, else what the config file says. */
export function adminTarget(options: GlobalOptions): string {
  if (options.adminPath !== undefined) return resolve(options.adminPath);
  const config = configOf(options);
  return adminPathOf({ config, stateFolder: stateFolderOf(config) });
}

/** The database file: the flag, else what the config file says. */
export function databaseTarget(options: GlobalOptions): string {
  return options.dbPath === undefined ? configOf(options).db.path : resolve(options.dbPath);
}

/** Where subscriptions are kept: as the config file says, else beside the database. */
export function subscriptionsFolder(options: GlobalOptions): string {
  const beside = join(dirname(databaseTarget(options)), "subscriptions");
  if (options.dbPath !== undefined) return beside;
  return configOf(options).db.subscriptions_path ?? beside;
}

/** The cluster id that the config says; null = there is no config file. */
export function clusterIdTarget(options: GlobalOptions): number | null {
  return hasConfig(options) ? configOf(options).gossip.cluster_id : null;
}

/** `[gossip]` of the config file. */
export function gossipTarget(options: GlobalOptions): PatinaConfig["gossip"] {
  return configOf(options).gossip;
}

/** `[consul]`, this host's name, and the level of the log. */
export function consulTarget(options: GlobalOptions): {
  readonly consul: PatinaConfig["consul"];
  readonly node: string;
  readonly level: string;
} {
  const { consul, replica, log } = configOf(options);
  return { consul, node: replica.node, level: log.level };
}

/** Certificates of the HTTPS listener and of the API; none without a config file. */
export function listenerCertificates(options: GlobalOptions): readonly string[] {
  if (!hasConfig(options)) return [];
  const { api, proxy } = configOf(options);
  const files = proxy.tls.certificates.map(({ cert_file }) => cert_file);
  return api.tls === undefined ? files : [...files, api.tls.cert_file];
}

/** Where checkpoints are: the argument, else `checkpoints.target`. Throws `USAGE` without either. */
export function checkpointsTarget(
  text: string | undefined,
  options: GlobalOptions,
): { readonly place: string; readonly config: CheckpointsConfig } {
  const config = hasConfig(options) ? configOf(options).checkpoints : checkpointsSection.parse({});
  const place = text ?? config.target;
  if (place !== undefined) return { place, config };
  throw new PatinaError(
    "USAGE",
    "no place for checkpoints: name a file, a folder or s3://bucket/prefix, or set checkpoints.target",
  );
}

/** A config file that is named must be there. */
function hasConfig(options: GlobalOptions): boolean {
  return options.config !== undefined || existsSync(configFileOf(options));
}

function configOf(options: GlobalOptions): PatinaConfig {
  const file = configFileOf(options);
  return loadConfig({ file, environment: process.env, mode: "agent" }).config;
}

/** A listener on all addresses is reached at the loopback one. */
function dialable(addr: string): string {
  const { host, port } = splitHostPort(addr);
  if (host === "0.0.0.0") return joinHostPort("127.0.0.1", port);
  return host === "::" ? joinHostPort("::1", port) : addr;
}

const DEFAULT_API = "127.0.0.1:8081";
