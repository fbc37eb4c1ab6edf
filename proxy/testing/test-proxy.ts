/**
 * An engine with its listener, a router that goes through a list of ports, and an observer that
 * remembers: what the end-to-end tests stand on.
 */
import { createEngine, type Engine, type EngineOptions } from "../http1/engine.ts";
import { createHttpListener, type HttpListener } from "../listeners/http-listener.ts";
import type { PickRequest, RequestSummary, Upstream } from "../types.ts";

/** What a test wants. */
export interface TestProxyOptions extends Partial<Omit<EngineOptions, "router" | "observer">> {
  /** Ports on 127.0.0.1, in order of preference; machine `m<index>`. Host `unknown` has no app. */
  readonly ports: readonly number[];
  /** Attempts in flight in all at which nothing more is picked; 0 = no limit. */
  readonly hardLimit?: number;
  /** Another thread is faster: what was picked is at its limit by then. Asked for each start. */
  readonly isOvertaken?: () => boolean;
  /** The machines speak HTTPS. */
  readonly hasTlsUpstreams?: boolean;
}

/** A running proxy and what it has done. */
export interface TestProxy {
  readonly engine: Engine;
  readonly listener: HttpListener;
  readonly port: number;
  readonly picks: { host: string; method: string; target: string }[];
  readonly finished: RequestSummary[];
  readonly attempts: string[];
  readonly refusals: string[];
  readonly connectFailures: { machineId: string; code: string }[];
  readonly connectRtts: number[];
  inFlight(): number;
  /** Resolves when so many requests wait in the queue. */
  queued(count: number): Promise<void>;
  setPorts(ports: readonly number[]): void;
  /** Resolves when the event loop has gone round once. */
  turn(): Promise<void>;
  /** Resolves when the next bytes have arrived from anywhere. */
  nextProgress(): Promise<void>;
  /** Resolves when every started attempt is finished and a request was reported. */
  idle(): Promise<void>;
}

/** Starts one on a free port of 127.0.0.1. */
export async function startProxy(options: TestProxyOptions): Promise<TestProxy> {
  const log = {
    picks: [] as TestProxy["picks"],
    finished: [] as RequestSummary[],
    attempts: [] as string[],
    refusals: [] as string[],
    connectFailures: [] as TestProxy["connectFailures"],
    connectRtts: [] as number[],
  };
  const { hardLimit = 0, isOvertaken = () => false, hasTlsUpstreams = false } = options;
  let upstreams = upstreamsOf(options.ports, hasTlsUpstreams);
  let inFlight = 0;
  let queued = 0;
  let wakes: (() => void)[] = [];
  const wake = (): void => {
    const waiting = wakes;
    wakes = [];
    for (const resolve of waiting) resolve();
  };
  const changed = (): Promise<void> => new Promise((resolve) => wakes.push(resolve));
  const engine = createEngine({
    forwarding: { viaName: "patina-test" },
    ...options,
    router: {
      pick: (request: PickRequest) => {
        const { host, method, target, excluded } = request;
        log.picks.push({ host, method, target });
        if (host === "unknown") return { kind: "none", code: "ROUTE_NO_APP" };
        const isFull = hardLimit > 0 && inFlight >= hardLimit;
        const upstream = upstreams.find(({ key }) => !excluded.includes(key));
        if (isFull && upstream) return { kind: "none", code: "ROUTE_ALL_FULL" };
        if (upstream === undefined) return { kind: "none", code: "ROUTE_NO_MACHINE" };
        return { kind: "upstream", upstream, reason: "first" };
      },
      started: () => {
        if (isOvertaken()) return false;
        inFlight += 1;
        return true;
      },
      finished: () => void (inFlight -= 1),
      connectFailed: ({ machineId }, code) => log.connectFailures.push({ machineId, code }),
      connectRtt: (_upstream, ms) => log.connectRtts.push(ms),
    },
    observer: {
      turnStarted: () => undefined,
      turnEnded: () => undefined,
      requestFinished: (summary) => {
        log.finished.push(copyOf(summary));
        wake();
      },
      upstreamAttempt: (_upstream, result) => log.attempts.push(result),
      parseRefused: (side, code) => log.refusals.push(`${side} ${code}`),
      connectionOpened: () => undefined,
      connectionClosed: () => undefined,
      queueChanged: (count) => {
        queued = count;
        wake();
      },
      progressed: () => setImmediate(wake),
    },
  });
  const listener = await createHttpListener({ engine, source: { host: "127.0.0.1", port: 0 } });
  return {
    ...log,
    engine,
    listener,
    port: listener.address.port,
    inFlight: () => inFlight,
    queued: async (count) => {
      while (queued !== count) await changed();
    },
    setPorts: (ports) => void (upstreams = upstreamsOf(ports)),
    turn: () => new Promise((resolve) => setImmediate(resolve)),
    nextProgress: changed,
    idle: async () => {
      for (;;) {
        if (inFlight === 0 && log.finished.length > 0) return;
        await changed();
      }
    },
  };
}

function upstreamsOf(ports: readonly number[], isTls = false): Upstream[] {
  return ports.map((port, index) => ({
    key: `m${index}/web/127.0.0.1:${port}`,
    host: "127.0.0.1",
    port,
    isTls,
    machineId: `m${index}`,
    appId: "app",
    serviceName: "web",
    region: "ams",
    rttMs: 1,
  }));
}

/** The view is only valid during the call; its getters are read here. */
function copyOf(summary: RequestSummary): RequestSummary {
  const { method, host, target, requestId } = summary;
  return { ...summary, method, host, target, requestId };
}
