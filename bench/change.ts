/**
 * How long a change of a machine takes from a worker host into the routing table of every edge:
 * three edges and one worker as real processes on loopback, changes one by one.
 *
 * The clock starts when the PUT leaves this process, so the API and the commit are inside, and stops
 * when the table of an edge answers picks by the new row (see `table-observer.ts`). Pauses of random
 * length between changes keep them from falling in step with any timer.
 */
import { percentile, type Bench, type BenchContext, type Sample } from "./measure.ts";
import { LocalCluster, sleep, type Host, type HostSpec } from "./local-cluster.ts";

/** Changes of an address, then changes of state, which may overtake others. */
export const bench: Bench = {
  about: "PUT at a worker -> in the routing table of each of 3 edges, 500 changes one by one",
  figures: [
    { name: "last p50", unit: "ms", target: { atMost: 15 } },
    { name: "last p99", unit: "ms", target: { atMost: 40 } },
    { name: "edge-1 p50", unit: "ms" },
    { name: "edge-1 p99", unit: "ms" },
    { name: "edge-2 p50", unit: "ms" },
    { name: "edge-2 p99", unit: "ms" },
    { name: "edge-3 p50", unit: "ms" },
    { name: "edge-3 p99", unit: "ms" },
    { name: "answer p50", unit: "ms" },
    { name: "urgent last p50", unit: "ms" },
    { name: "urgent last p99", unit: "ms" },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const changes = await startEdges(context, EDGES);
  for (let at = 0; at < WARM_UP; at++) await changes.move();
  context.note("last = the slowest of the three edges; answer = the worker's answer to the PUT");
  for (;;) yield await sample(changes);
}

/** Starts a worker and the edges that are to say what is in their tables. */
export async function startEdges(
  context: BenchContext,
  edges: readonly string[],
  config: HostSpec["config"] = {},
): Promise<Changes> {
  const cluster = await LocalCluster.create(context);
  const sightings = new Sightings();
  const worker = await cluster.start({ name: "worker", kind: "agent", bootstrap: [], config });
  await worker.ready();
  for (const name of edges) {
    const edge = await cluster.start({
      name,
      kind: "edge",
      bootstrap: [worker],
      config,
      env: { NODE_OPTIONS: `--import ${OBSERVER}` },
      onOutput: (line) => sightings.note(name, line),
    });
    await edge.ready();
  }
  await worker.put("apps/hello", { name: "Hello" });
  await worker.put("hostnames/hello.bench", { app: "hello" });
  return new Changes({ worker, edges, sightings });
}

async function sample(changes: Changes): Promise<Sample> {
  const moves: Change[] = [];
  for (let at = 0; at < CHANGES; at++) moves.push(await changes.move());
  const urgent: Change[] = [];
  for (let at = 0; at < URGENT_CHANGES; at++) urgent.push(await changes.turn());
  const figures: Record<string, number> = {};
  const put = (name: string, values: readonly number[]): void => {
    figures[`${name} p50`] = percentile(values, 0.5);
    figures[`${name} p99`] = percentile(values, 0.99);
  };
  put("last", moves.map(last));
  for (const [at, edge] of EDGES.entries()) {
    put(
      edge,
      moves.map((change) => change.edgesMs[at] ?? Number.NaN),
    );
  }
  put(
    "answer",
    moves.map((change) => change.answerMs),
  );
  put("urgent last", urgent.map(last));
  return figures;
}

/** Times of one change since its PUT was sent. */
export interface Change {
  readonly answerMs: number;
  /** In the order of the edges. */
  readonly edgesMs: readonly number[];
}

/** When the slowest edge had it. */
export function last(change: Change): number {
  return Math.max(...change.edgesMs);
}

/** Makes changes of one machine, each other than the one before. */
export class Changes {
  readonly #worker: Host;
  readonly #edges: readonly string[];
  readonly #sightings: Sightings;
  #port = 10_000;
  #isStarted = true;

  constructor(parts: { worker: Host; edges: readonly string[]; sightings: Sightings }) {
    this.#worker = parts.worker;
    this.#edges = parts.edges;
    this.#sightings = parts.sightings;
  }

  /** The machine's service moves to another port. */
  move(): Promise<Change> {
    this.#port = this.#port === 60_000 ? 10_000 : this.#port + 1;
    return this.#put(`127.0.0.1:${this.#port}`);
  }

  /** The machine stops, or starts again. */
  turn(): Promise<Change> {
    this.#isStarted = !this.#isStarted;
    return this.#put(this.#isStarted ? "started" : "stopped");
  }

  async #put(news: string): Promise<Change> {
    await sleep(Math.random() * PAUSE_MAX_MS);
    const seen = this.#edges.map((edge) => this.#sightings.next(edge, `${MACHINE} ${news}`));
    const startNs = process.hrtime.bigint();
    await this.#worker.put(`machines/${MACHINE}`, {
      app: "hello",
      region: "lo",
      state: this.#isStarted ? "started" : "stopped",
      services: [{ name: "web", address: `127.0.0.1:${this.#port}`, protocol: "http" }],
      checks: [],
    });
    const answerMs = Number(process.hrtime.bigint() - startNs) / 1e6;
    const edgesNs = await Promise.all(seen);
    return { answerMs, edgesMs: edgesNs.map((atNs) => Number(atNs - startNs) / 1e6) };
  }
}

/** What the edges say is in their tables. */
class Sightings {
  readonly #waiting = new Map<string, (atNs: bigint) => void>();

  /** Takes a line of an edge. */
  note(edge: string, line: string): void {
    const [word, atNs = "0", machineId, news] = line.split(" ");
    if (word !== "in-table") return;
    const key = `${edge} ${machineId} ${news}`;
    this.#waiting.get(key)?.(BigInt(atNs));
    this.#waiting.delete(key);
  }

  /** When the edge next says `what`, in nanoseconds. Rejects after 10 s. */
  next(edge: string, what: string): Promise<bigint> {
    const { promise, resolve, reject } = Promise.withResolvers<bigint>();
    const timer = setTimeout(
      () => reject(new Error(`${edge} did not get "${what}" within ${SEEN_LIMIT_MS} ms`)),
      SEEN_LIMIT_MS,
    );
    this.#waiting.set(`${edge} ${what}`, (atNs) => {
      clearTimeout(timer);
      resolve(atNs);
    });
    return promise;
  }
}

const EDGES = ["edge-1", "edge-2", "edge-3"] as const;
const OBSERVER = new URL("./table-observer.ts", import.meta.url).href;
const MACHINE = "machine-1";
const CHANGES = 500;
const URGENT_CHANGES = 100;
/** Code is compiled by then; connections are up. */
const WARM_UP = 50;
const PAUSE_MAX_MS = 10;
const SEEN_LIMIT_MS = 10_000;
