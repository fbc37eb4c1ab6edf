/**
 * How long nobody is answered when an edge's event loop stalls for ever: from the request that
 * blocks the loop to the first routed answer, under the real supervisor, with 1,000 machines
 * published and steady traffic of an open loop.
 *
 * The parts come from what the processes themselves write down: the evidence file (detection), the
 * log line of the listener with the age of its process (start and boot).
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { request } from "undici";
import { Traffic } from "../bin/demo/load.ts";
import { LocalCluster, machineOn, sleep, startMachine, type Host } from "./local-cluster.ts";
import type { Bench, BenchContext, Sample } from "./measure.ts";

/** Budget 1,000 ms + jitter up to 200 ms + 500 ms for everything after. */
export const bench: Bench = {
  about: "stalled loop -> first routed answer, 1,000 machines, under the supervisor",
  figures: [
    { name: "stall to answer", unit: "ms", target: { atMost: 1_700 } },
    { name: "beyond budget and jitter", unit: "ms", target: { atMost: 500 } },
    { name: "detection", unit: "ms" },
    { name: "kill and start", unit: "ms" },
    { name: "boot to listening", unit: "ms" },
    { name: "listening to answer", unit: "ms" },
    { name: "refused connections", unit: "", target: { atMost: 0 } },
    { name: "requests lost", unit: "" },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const { stack } = context;
  const cluster = await LocalCluster.create(context);
  const machinePort = await startMachine(stack);
  const starts = new Starts();
  const edge = await cluster.start({
    name: "edge",
    kind: "edge",
    bootstrap: [],
    config: {
      fault: { enabled: true, stall_path: STALL_PATH },
      watchdog: { allow_fault_injection: true },
    },
    onLog: (line) => starts.note(line),
  });
  await edge.ready();
  await publish(edge, machinePort);
  const traffic = new Traffic({
    pop: edge.name,
    origin: `http://127.0.0.1:${edge.httpPort}`,
    host: HOSTNAME,
    ratePerSecond: RATE_PER_SECOND,
  });
  traffic.start();
  stack.defer(() => traffic.stop());
  context.note("detection = stall to evidence on disk: budget, jitter, poll, stack, file");
  for (;;) {
    await settle(traffic);
    yield await stallOnce(edge, { traffic, starts });
  }
}

async function stallOnce(
  edge: Host,
  watched: { readonly traffic: Traffic; readonly starts: Starts },
): Promise<Sample> {
  const { traffic, starts } = watched;
  traffic.startWindow();
  const bounced = starts.next();
  const stalledAtMs = performance.timeOrigin + performance.now();
  const stalledMs = performance.now();
  void blockLoop(`http://127.0.0.1:${edge.httpPort}${STALL_PATH}`);
  // What was answered before the fault took hold is none of the new process's.
  const first = await traffic.nextAnswer(
    (answer) => answer.sentMs + answer.latencyMs > stalledMs + IN_FLIGHT_MS,
    ANSWER_LIMIT_MS,
  );
  if (first === null) throw new Error(`no answer within ${ANSWER_LIMIT_MS} ms; see ${edge.folder}`);
  const answeredAtMs = stalledAtMs + first.sentMs + first.latencyMs - stalledMs;
  const { startedAtMs, listeningAtMs } = await bounced;
  const evidence = newestEvidence(join(edge.folder, "state", "stalls"));
  return {
    "stall to answer": answeredAtMs - stalledAtMs,
    // The jitter itself is drawn anew each time: silence at the accusation holds budget and jitter.
    "beyond budget and jitter": answeredAtMs - stalledAtMs - evidence.silentMs,
    detection: evidence.atMs - stalledAtMs,
    "kill and start": startedAtMs - evidence.atMs,
    "boot to listening": listeningAtMs - startedAtMs,
    "listening to answer": answeredAtMs - listeningAtMs,
    "refused connections": traffic.window.refused,
    "requests lost": traffic.window.failed,
  };
}

/** A second of nothing but answers, so that one run does not reach into the next. */
async function settle(traffic: Traffic): Promise<void> {
  for (let calm = 0; calm < RATE_PER_SECOND;) {
    traffic.startWindow();
    await sleep(250);
    const { answered, failed, refused } = traffic.window;
    calm = failed + refused === 0 ? calm + answered : 0;
  }
}

/** Never answered: the loop that would is blocked, and its process is killed. */
async function blockLoop(url: string): Promise<void> {
  try {
    const response = await request(url, { headers: { host: HOSTNAME } });
    await response.body.dump();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
  }
}

/** 100 apps with 10 machines each. */
async function publish(edge: Host, port: number): Promise<void> {
  await edge.put("hostnames/" + HOSTNAME, { app: "app-0" });
  for (let at = 0; at < MACHINES; at++) {
    await edge.put(`machines/machine-${at}`, machineOn(port, `app-${Math.floor(at / 10)}`));
  }
}

interface Start {
  /** Unix ms of the process's beginning and of its listener. */
  readonly startedAtMs: number;
  readonly listeningAtMs: number;
}

/** Reads starts of edge processes out of the log. */
class Starts {
  #resolve: (start: Start) => void = () => undefined;

  note(line: string): void {
    if (!line.includes('"event":"listening"') || !line.includes('"bootMs"')) return;
    const { time, bootMs } = JSON.parse(line) as { time: string; bootMs: number };
    const listeningAtMs = Date.parse(time);
    this.#resolve({ startedAtMs: listeningAtMs - bootMs, listeningAtMs });
  }

  next(): Promise<Start> {
    return new Promise((resolve) => (this.#resolve = resolve));
  }
}

function newestEvidence(folder: string): { atMs: number; silentMs: number } {
  const name = readdirSync(folder)
    .filter((file) => file.endsWith(".json"))
    .toSorted()
    .at(-1);
  if (name === undefined) throw new Error(`no evidence in ${folder}`);
  const { time, silentMs } = JSON.parse(readFileSync(join(folder, name), "utf8")) as {
    time: string;
    silentMs: number;
  };
  return { atMs: Date.parse(time), silentMs };
}

const STALL_PATH = "/bench-stall";
const HOSTNAME = "hello.bench";
const MACHINES = 1_000;
const RATE_PER_SECOND = 200;
/** Far below the least budget, far above a request. */
const IN_FLIGHT_MS = 500;
const ANSWER_LIMIT_MS = 20_000;
