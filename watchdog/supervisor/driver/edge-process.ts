/**
 * One run of the edge process: spawned on the held sockets, listened to through its pipe.
 *
 * Descriptors are described to it in the environment:
 * `PATINA_FDS={"beat":3,"http":[4,5],"spares":{"http":[6]}}`. A thread closes its socket's descriptor
 * when it dies, so every socket but the first of a group, which is the main thread's, comes with a
 * second descriptor for the thread that replaces the first one. What an upgrade asks of it comes in as
 * lines on its standard input (`proxy/upgrade-orders.ts` reads them).
 * It leads a process group of its own, so that a Ctrl-C in a terminal reaches the supervisor alone
 * and the edge hears of it once.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { Readable } from "node:stream";
import type { RestartOutput } from "../../core/restart-policy.ts";
import { type LateWork, type PipeLine, PipeLines } from "../../core/pipe-lines.ts";
import type { HeldSocket } from "./held-sockets.ts";
import type { EdgeConfig } from "./upgrade-files.ts";

/** How an edge ended. */
export interface EdgeExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** An edge as the supervisor knows it, and what it has told. */
export interface EdgeRun {
  readonly process: EdgeProcess;
  readonly startedMs: number;
  /** What it was started with. */
  readonly from: EdgeConfig;
  /** Settles with its end. */
  readonly ended: Promise<void>;
  /** Signs of life so far. */
  beats: number;
  /** Newest evidence of this run, of a stall that leads to a bounce or of a crash. */
  stallId: string | null;
  isReady: boolean;
  /** What a late loop is at. */
  work: LateWork | null;
  /** Peers that were bounced lately, when that is beyond the fleet's budget; else 0. */
  peersBounced: number;
  /** Set when the edge ended unasked; the alert waits for the rest of its pipe. */
  bounce: Extract<RestartOutput, { kind: "bounced" }> | null;
}

/** How to start an edge. */
export interface EdgeRequest {
  /** The effective config; its path is the edge's only argument. */
  readonly from: EdgeConfig;
  readonly sockets: readonly HeldSocket[];
  /** It is to load its table and wait for `takeOver`. */
  readonly isStandby: boolean;
}

/** What an edge is told during an upgrade. */
export type EdgeOrder = "takeOver" | "handOver" | "resume";

/** What an edge tells. */
export interface EdgeEvents {
  line(line: PipeLine): void;
  /** The process ended, or could not be started (code 1). Called once. */
  exited(code: number | null, signal: NodeJS.Signals | null): void;
  /** Everything it had written to the pipe has been read, or 200 ms have passed. After `exited`. */
  closed(): void;
}

/** A running edge. */
export interface EdgeProcess {
  /** 0 where it could not be started. */
  readonly pid: number;
  signal(signal: NodeJS.Signals): void;
  /** Sends an order; one that has ended does not hear it. */
  tell(order: EdgeOrder): void;
}

/** Starts an edge. */
export function startEdge(request: EdgeRequest, events: EdgeEvents): EdgeProcess {
  const { from, sockets } = request;
  const { config, path } = from;
  const { fds, stdio } = describeFds(sockets);
  const flags = config.nodeFlags ?? [];
  const nodePath = config.nodePath ?? process.execPath;
  const child = spawn(nodePath, [...flags, config.edgeEntry, path], {
    stdio: ["pipe", "inherit", "inherit", "pipe", ...stdio],
    env: {
      ...process.env,
      ...config.env,
      PATINA_FDS: JSON.stringify(fds),
      ...(request.isStandby ? { PATINA_STANDBY: "1" } : {}),
    },
    detached: true,
  });
  // It may be gone when an order comes: `exited` is on its way.
  child.stdin?.on("error", () => undefined);
  const isPipeRead = readPipe(child, events);
  const onEnd = (code: number | null, signal: NodeJS.Signals | null): void => {
    events.exited(code, signal);
    const limit = new Promise((resolve) => setTimeout(resolve, PIPE_LIMIT_MS));
    void Promise.race([isPipeRead, limit]).then(() => events.closed());
  };
  child.once("exit", onEnd);
  child.once("error", () => {
    if (child.pid === undefined) onEnd(1, null);
  });
  return {
    pid: child.pid ?? 0,
    // Already gone is as good as signalled: `exited` is on its way.
    signal: (signal) => void child.kill(signal),
    tell: (order) => void child.stdin?.write(`${order}\n`),
  };
}

/** What stands in `PATINA_FDS`: stdio positions by name, in the order of the config. */
interface FdDescription {
  readonly beat: number;
  /** By name, those of the second and further sockets of each group. */
  readonly spares: Record<string, number[]>;
  [name: string]: number | number[] | Record<string, number[]>;
}

/** Which descriptors of this process a child gets behind its beat pipe, and what they are to it. */
function describeFds(sockets: readonly Pick<HeldSocket, "name" | "fd">[]): {
  readonly fds: FdDescription;
  readonly stdio: readonly number[];
} {
  const fds: FdDescription = { beat: BEAT_FD, spares: {} };
  const stdio: number[] = [];
  for (const { name, fd } of sockets) {
    const group = (fds[name] ??= []);
    if (!Array.isArray(group)) continue;
    group.push(BEAT_FD + stdio.push(fd));
    if (group.length === 1) continue;
    // The same descriptor named twice is duplicated for the child.
    const spares = (fds.spares[name] ??= []);
    spares.push(BEAT_FD + stdio.push(fd));
  }
  return { fds, stdio };
}

function readPipe(child: ChildProcess, events: EdgeEvents): Promise<void> {
  const pipe = child.stdio[BEAT_FD];
  if (!(pipe instanceof Readable)) return Promise.resolve();
  const lines = new PipeLines();
  return new Promise((resolve) => {
    pipe.on("data", (bytes: Buffer) => {
      for (const line of lines.take(bytes)) events.line(line);
    });
    // A reset is how a pipe ends when its writer was killed.
    pipe.on("error", () => resolve());
    pipe.on("close", () => resolve());
  });
}

const BEAT_FD = 3;
/** A grandchild may hold the pipe open; the alert does not wait for it. */
const PIPE_LIMIT_MS = 200;
