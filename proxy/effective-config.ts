/**
 * The effective config: what the command line validated, frozen in a file, so that a bounce starts
 * the edge with the config that it ran with, whatever has become of the operator's file meanwhile.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { splitHostPort } from "#base/host-port.ts";
import type { SupervisorConfig } from "../watchdog/supervisor/supervisor-config.ts";
import type { PatinaConfig } from "./config.ts";

/** Whether this process routes traffic, or carries a replica alone. */
export type Mode = "edge" | "agent";

/** Contents of the file. `supervisor` is all that the supervisor reads. */
export interface EffectiveConfig {
  readonly mode: Mode;
  readonly config: PatinaConfig;
  /** SHA-256 of the config, hex. */
  readonly hash: string;
  /** The operator's file. */
  readonly file: string;
  readonly stateFolder: string;
  readonly extensionPath: string;
  readonly supervisor: SupervisorConfig;
}

/** What the file is made of. */
export interface EffectiveConfigSource {
  readonly mode: Mode;
  readonly config: PatinaConfig;
  readonly hash: string;
  readonly file: string;
  readonly stateFolder: string;
  readonly extensionPath: string;
}

/** Writes `effective-config.json` into the state folder, whole or not at all; returns its path. */
export function writeEffectiveConfig(source: EffectiveConfigSource): string {
  const { config, mode, stateFolder } = source;
  const { host, port } = splitHostPort(config.proxy.http);
  const supervisor: SupervisorConfig = {
    listen: mode === "edge" ? [{ name: "http", host, port, sockets: config.proxy.threads }] : [],
    edgeEntry: fileURLToPath(new URL("./edge-main.ts", import.meta.url)),
    stateFolder,
    webhook: config.watchdog.webhook ?? null,
    silenceLimitMs: config.watchdog.silence_ms,
    drainLimitMs: config.proxy.drain_timeout_ms + STOP_MARGIN_MS,
  };
  const effective: EffectiveConfig = { ...source, supervisor };
  mkdirSync(stateFolder, { recursive: true });
  mkdirSync(dirname(config.db.path), { recursive: true });
  const path = join(stateFolder, "effective-config.json");
  const temporary = `${path}.${process.pid}`;
  // It may hold a bearer token.
  writeFileSync(temporary, `${JSON.stringify(effective, null, 2)}\n`, { mode: 0o600 });
  renameSync(temporary, path);
  return path;
}

/** Reads the file again, in the edge process. */
export function readEffectiveConfig(path: string): EffectiveConfig {
  return JSON.parse(readFileSync(path, "utf8")) as EffectiveConfig;
}

/** After the HTTP drain: leaving the cluster and closing the database. */
const STOP_MARGIN_MS = 10_000;
