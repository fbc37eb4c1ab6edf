/**
 * Injected faults for demos and tests; nothing of this is on any path unless the config asks for it.
 */
import { joinHostPort } from "#base/host-port.ts";
import type { FaultInjection } from "../replica/driver/quic/options.ts";
import type { RowChange } from "../replica/types.ts";
import type { PatinaConfig } from "./config.ts";
import type { DelayEmulation, Pick, PickRequest, Router } from "./types.ts";

/** Delays of UDP packets: half of each emulated round trip. Undefined = none asked for. */
export function udpFaults(fault: PatinaConfig["fault"]): FaultInjection | undefined {
  if (!fault.enabled || Object.keys(fault.udp_rtt_ms).length === 0) return undefined;
  const rttByAddress = new Map(Object.entries(fault.udp_rtt_ms));
  return { delayMs: (remote) => (rttByAddress.get(remote) ?? 0) / 2 };
}

/** Delays of connections to machines. Undefined = none asked for. */
export function tcpDelays(fault: PatinaConfig["fault"]): DelayEmulation | undefined {
  if (!fault.enabled || Object.keys(fault.tcp_rtt_ms).length === 0) return undefined;
  const rttByAddress = new Map(Object.entries(fault.tcp_rtt_ms));
  return {
    oneWayDelayMs: ({ host, port }) => (rttByAddress.get(joinHostPort(host, port)) ?? 0) / 2,
  };
}

/**
 * A routing table's fault: called with a row and where the table is with it. Undefined = none
 * asked for; the config refuses it unless `watchdog.allow_fault_injection` is set.
 */
export function rowFault(
  config: PatinaConfig,
): ((change: RowChange, at: "apply" | "rebuild") => void) | undefined {
  const { enabled, stall_row: wanted } = config.fault;
  if (!enabled || !config.watchdog.allow_fault_injection || wanted === undefined) return undefined;
  let slowMs = 1;
  return ({ table, row }, at) => {
    if (table !== wanted.table || row?.[wanted.column] !== wanted.value) return;
    if (at === wanted.at) blockForEver();
    if (at === "rebuild") return;
    switch (wanted.at) {
      case "throw":
        throw new Error("injected fault: a row that cannot be applied");
      case "deadlock":
        return waitOnNothing(Infinity);
      case "slow":
        waitOnNothing(slowMs);
        slowMs *= 2;
        return;
      case "memory":
        return fillMemory();
      case "apply":
      case "rebuild":
        return;
    }
  };
}

/**
 * A router that blocks the loop for ever at a request to `stall_path`, keeps it busy for ever at one
 * to `livelock_path`, and throws outside every handler at one to `crash_path`; else the router
 * given. `loop` is the loop that it runs in.
 */
export function withFaultPaths(router: Router, fault: PatinaConfig["fault"], loop: string): Router {
  const { enabled, stall_path: stallPath, crash_path: crashPath, loop: only = loop } = fault;
  const { livelock_path: livelockPath } = fault;
  const isAsked = [stallPath, crashPath, livelockPath].some((path) => path !== undefined);
  if (!enabled || !isAsked || only !== loop) return router;
  return {
    pick: (request: PickRequest): Pick => {
      if (request.target === stallPath) blockForEver();
      if (request.target === crashPath) crash();
      if (request.target === livelockPath) spinForEver();
      return router.pick(request);
    },
    started: (upstream) => router.started(upstream),
    finished: (upstream, outcome) => router.finished(upstream, outcome),
    connectFailed: (upstream, code) => router.connectFailed(upstream, code),
    connectRtt: (upstream, ms) => router.connectRtt(upstream, ms),
  };
}

/** The loop turns and turns: timers run, what comes in is served, and nothing makes it stop. */
function spinForEver(): void {
  // Some work in each turn, as a bug would have it.
  const untilMs = performance.now() + SPIN_MS;
  while (performance.now() < untilMs);
  setImmediate(spinForEver);
}

/** As threads do that wait for each other; in milliseconds. */
function waitOnNothing(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Until V8 gives up and aborts the process. */
function fillMemory(): never {
  const held: number[][] = [];
  for (;;) held.push(Array.from({ length: 1_000 }, () => held.length + 0.5));
}

/** As an exception that nobody catches. */
function crash(): never {
  throw new Error("the fault crash_path was asked for");
}

/** The fault itself, under a name that evidence shows. */
function blockForEver(): never {
  for (;;) {
    // Busy, as a bug would be.
  }
}

const SPIN_MS = 5;
