/**
 * What the supervisor reads of the effective config: its section `supervisor`. The command line has
 * validated the whole file with better messages; this only refuses what it cannot run with.
 */
import { readFileSync } from "node:fs";
import { isAbsolute } from "node:path";
import { errorText } from "#base/errors.ts";
import { type Result, failure, success } from "#base/machine.ts";

/** One address the edge serves, held open by the supervisor. */
export interface ListenConfig {
  /** Name under which the edge finds its descriptors in `PATINA_FDS`: `http`, `https`. */
  readonly name: string;
  /** An IP address: `0.0.0.0`, `::`, `127.0.0.1`. */
  readonly host: string;
  /** 0 = any. */
  readonly port: number;
  /** Sockets of one SO_REUSEPORT group, one per data-plane thread; default 1. */
  readonly sockets?: number;
  /** All threads accept from one socket; default: only where the system has no SO_REUSEPORT. */
  readonly isShared?: boolean;
  /** Default: true where another entry has the same port on IPv4, else false. */
  readonly isIpv6Only?: boolean;
}

/** How alerts are delivered; times in milliseconds. */
export interface AlertRules {
  /** `http:` or `https:` URL that alerts are posted to as JSON; null = none. */
  readonly webhook: string | null;
  /** One post. */
  readonly timeoutMs: number;
  readonly attemptsMax: number;
  /** Before the second attempt, doubled for each further one. */
  readonly retryFirstMs: number;
  readonly retryMaxMs: number;
  /** Alerts that wait for the webhook at most. */
  readonly queuedMax: number;
  /** The same kind about the same subject within this time is one alert. */
  readonly repeatMs: number;
}

/** What holds where the config says nothing. */
export const ALERT_RULES: AlertRules = {
  webhook: null,
  timeoutMs: 5_000,
  attemptsMax: 8,
  retryFirstMs: 1_000,
  retryMaxMs: 60_000,
  queuedMax: 16,
  repeatMs: 3_600_000,
};

/** Section `supervisor` of the effective config. */
export interface SupervisorConfig {
  readonly listen: readonly ListenConfig[];
  /** Absolute path of the edge process's entry; it gets the config's path as its argument. */
  readonly edgeEntry: string;
  /** The Node it runs on; default: the supervisor's own. */
  readonly nodePath?: string;
  /** Flags for Node, before the entry. */
  readonly nodeFlags?: readonly string[];
  /** Added to the environment of the edge. */
  readonly env?: Readonly<Record<string, string>>;
  /** Evidence is read from and written to `<stateFolder>/stalls/`. */
  readonly stateFolder: string;
  /** Default: `ALERT_RULES`. */
  readonly alerts?: Partial<AlertRules>;
  /** An edge whose pipe is silent for this long is killed; default 10,000. */
  readonly silenceLimitMs?: number;
  /** The same before the edge's first sign of life; default 30,000. */
  readonly bootSilenceLimitMs?: number;
  /** Longest drain after the first SIGTERM before SIGKILL; default 60,000. */
  readonly drainLimitMs?: number;
  /** Exits before ready within 60 s that start the back-off; default 5. */
  readonly crashLoopExits?: number;
  /** First delay of the back-off, doubled each time up to 30 s; default 1,000. */
  readonly backOffFirstMs?: number;
  /** Exits before ready after which to give up when no edge was ever ready; default 10. */
  readonly giveUpExits?: number;
  /** Longest wait for each step of an upgrade before it is undone; default 30,000. */
  readonly upgradeStepLimitMs?: number;
  /** In the config of an upgrade: given back with its outcome, so that whoever asked knows it. */
  readonly upgradeId?: string;
}

/** Reads and checks the effective config file; the failure is one line for the operator. */
export function readSupervisorConfig(path: string): Result<SupervisorConfig, string> {
  try {
    const file = JSON.parse(readFileSync(path, "utf8")) as { supervisor?: unknown };
    return checkConfig(file.supervisor, path);
  } catch (error) {
    return failure(`cannot read the effective config ${path}: ${errorText(error)}`);
  }
}

function checkConfig(section: unknown, path: string): Result<SupervisorConfig, string> {
  if (typeof section !== "object" || section === null) {
    return failure(`${path} has no section "supervisor"`);
  }
  const { listen, edgeEntry, stateFolder } = section as Partial<SupervisorConfig>;
  if (!Array.isArray(listen) || !listen.every(isListen)) {
    return failure(`${path}: supervisor.listen is not a list of {name, host, port}`);
  }
  if (typeof edgeEntry !== "string" || !isAbsolute(edgeEntry)) {
    return failure(`${path}: supervisor.edgeEntry is not an absolute path`);
  }
  if (typeof stateFolder !== "string") return failure(`${path}: supervisor.stateFolder is missing`);
  return success(section as SupervisorConfig);
}

function isListen(entry: unknown): entry is ListenConfig {
  if (typeof entry !== "object" || entry === null) return false;
  const { name, host, port, sockets = 1 } = entry as Partial<ListenConfig>;
  const isPort = Number.isInteger(port) && (port ?? -1) >= 0 && (port ?? 0) <= 65_535;
  const isCount = Number.isInteger(sockets) && sockets >= 1 && sockets <= SOCKETS_MAX;
  return typeof name === "string" && typeof host === "string" && isPort && isCount;
}

/** One per data-plane thread; no machine we know has more cores to spare for one proxy. */
const SOCKETS_MAX = 64;
