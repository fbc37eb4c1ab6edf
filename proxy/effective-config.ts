/**
 * The effective config: what the command line validated, frozen in a file, so that a bounce starts
 * the edge with the config that it ran with, whatever has become of the operator's file meanwhile.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { errorText, PatinaError } from "#base/errors.ts";
import { splitHostPort } from "#base/host-port.ts";
import { nextConfigFile } from "../watchdog/supervisor/driver/upgrade-files.ts";
import type { AlertRules, SupervisorConfig } from "../watchdog/supervisor/supervisor-config.ts";
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
  readonly deadlinePath: string;
  /** What flags and environment laid over the operator's file: an upgrade lays it over again. */
  readonly overrides: readonly ConfigOverride[];
  readonly supervisor: SupervisorConfig;
}

/** A dotted key with its value, and where that came from. */
export interface ConfigOverride {
  readonly key: string;
  readonly value: unknown;
  readonly source: string;
}

/** What the file is made of. */
export interface EffectiveConfigSource {
  readonly mode: Mode;
  readonly config: PatinaConfig;
  readonly hash: string;
  readonly file: string;
  readonly stateFolder: string;
  readonly extensionPath: string;
  readonly deadlinePath: string;
  /** Default: none. */
  readonly overrides?: readonly ConfigOverride[];
  /** Set for an upgrade: the file is that of the next edge process, and its report has this id. */
  readonly upgradeId?: string;
}

/**
 * Writes the file into the state folder, whole or not at all; returns its path.
 * Throws `CONFIG_INVALID` when the folders cannot be made or written, `STORE_FULL`.
 */
export function writeEffectiveConfig(source: EffectiveConfigSource): string {
  const { upgradeId, overrides = [], ...rest } = source;
  const { config, mode, stateFolder } = rest;
  const { host, port } = splitHostPort(config.proxy.http);
  const { addr } = config.proxy.tls;
  const sockets = config.proxy.threads;
  const https = addr === undefined ? [] : [{ name: "https", ...splitHostPort(addr), sockets }];
  const supervisor: SupervisorConfig = {
    listen: mode === "edge" ? [{ name: "http", host, port, sockets }, ...https] : [],
    nodePath: process.execPath,
    edgeEntry: fileURLToPath(new URL("./edge-main.ts", import.meta.url)),
    stateFolder,
    alerts: alertRulesOf(config.alerts),
    silenceLimitMs: config.watchdog.silence_ms,
    drainLimitMs: config.proxy.drain_timeout_ms + STOP_MARGIN_MS,
    ...(mode === "agent" ? agentProcess(process.env) : {}),
  };
  const effective: EffectiveConfig = {
    ...rest,
    overrides,
    supervisor: upgradeId === undefined ? supervisor : { ...supervisor, upgradeId },
  };
  const inForce = effectiveConfigFile(stateFolder);
  const path = upgradeId === undefined ? inForce : nextConfigFile(inForce);
  const temporary = `${path}.${process.pid}`;
  const text = `${JSON.stringify(effective, null, 2)}\n`;
  try {
    mkdirSync(stateFolder, { recursive: true });
    mkdirSync(dirname(config.db.path), { recursive: true });
    // A start with the config of the last one needs no room on the disk.
    if (existsSync(path) && readFileSync(path, "utf8") === text) return path;
    // It may hold a bearer token.
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, path);
  } catch (error) {
    const isFull = (error as NodeJS.ErrnoException).code === "ENOSPC";
    throw new PatinaError(
      isFull ? "STORE_FULL" : "CONFIG_INVALID",
      `watchdog.state_folder or db.path: ${errorText(error)}`,
      { cause: error },
    );
  }
  return path;
}

/**
 * How an agent's process is started. Each of its threads has an arena of the allocator and a young
 * generation, which fill with garbage before anybody looks. It gets two arenas in all; and its main
 * thread, which has nothing to do, the least young generation: `edge-main.ts` takes the flag back before
 * other threads start. Not an edge's, whose main thread is a data plane.
 */
function agentProcess({
  MALLOC_ARENA_MAX = "2",
}: NodeJS.ProcessEnv): Pick<SupervisorConfig, "env" | "nodeFlags"> {
  return { env: { MALLOC_ARENA_MAX }, nodeFlags: ["--max-semi-space-size=1"] };
}

function alertRulesOf(alerts: PatinaConfig["alerts"]): AlertRules {
  return {
    webhook: alerts.webhook ?? null,
    timeoutMs: alerts.timeout_ms,
    attemptsMax: alerts.attempts_max,
    retryFirstMs: alerts.retry_first_ms,
    retryMaxMs: alerts.retry_max_ms,
    queuedMax: alerts.queued_max,
    repeatMs: alerts.repeat_ms,
  };
}

/** The config in force. */
export function effectiveConfigFile(stateFolder: string): string {
  return join(stateFolder, "effective-config.json");
}

/** Path of the admin socket: as configured, else in the state folder. */
export function adminPathOf(source: Pick<EffectiveConfig, "config" | "stateFolder">): string {
  return source.config.admin.path ?? join(source.stateFolder, "admin.sock");
}

/** Reads the file again, in the edge process. */
export function readEffectiveConfig(path: string): EffectiveConfig {
  return JSON.parse(readFileSync(path, "utf8")) as EffectiveConfig;
}

/** After the HTTP drain: leaving the cluster and closing the database. */
const STOP_MARGIN_MS = 10_000;
