/**
 * The outage that one valid change makes: every edge that applies it stalls for ever. Edges as
 * processes, steady traffic on each, the change published at one worker; once of a shape that no
 * table has applied and once of an ordinary one, each with protection on and off.
 *
 * Protection off is canaries, warnings, holds and the restart budget all switched off by their config
 * keys; the watchdog still bounces. What happened comes from the edges' own logs and from the answers
 * to the traffic.
 */
import { Traffic } from "../bin/demo/load.ts";
import { LocalCluster, machineOn, sleep, startMachine, type Host } from "./local-cluster.ts";
import type { Bench, BenchContext, FigureSpec, Sample } from "./measure.ts";
import { untilAllKnow } from "./replica-cluster.ts";

const SHAPES = {
  unseen: { table: "services", column: "protocol", value: "h2c" },
  ordinary: { table: "machines", column: "region", value: "poison" },
} as const;

type Shape = keyof typeof SHAPES;

/** Without an answer for so long an edge counts as down: ten requests at the usual rate. */
const DOWN_MS = 500;

/** Figures of each case. */
const FIGURES: readonly Omit<FigureSpec, "target">[] = [
  { name: "edges that stalled", unit: "" },
  { name: "most stalls of one edge", unit: "" },
  { name: "longest without an answer, victims", unit: "s" },
  { name: "longest without an answer, others", unit: "s" },
  { name: "refused connections", unit: "" },
  { name: "requests lost on others", unit: "" },
  { name: "requests lost on victims", unit: "" },
  { name: "until the fleet is whole", unit: "s" },
  { name: "changes held", unit: "" },
];

/** `--edges 12 --seconds 40 --rate 20`; `--only unseen` or `ordinary`; `--protection on` or `off`. */
export const bench: Bench = {
  about: "a change that stalls every edge: unseen and ordinary shape, protection on and off",
  figures: cases(new Map()).flatMap(([shape, isProtected]) =>
    FIGURES.map((figure) => ({
      ...figure,
      name: figureName(shape, isProtected, figure.name),
      ...targetOf(shape, isProtected, figure.name),
    })),
  ),
  defaultRuns: 1,
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const { flags } = context;
  const edges = Number(flags.get("edges") ?? 12);
  const seconds = Number(flags.get("seconds") ?? 40);
  const ratePerSecond = Number(flags.get("rate") ?? 20);
  context.note(`${edges} edges, ${ratePerSecond} requests/s on each, watched for ${seconds} s`);
  for (;;) {
    const sample: Record<string, number> = {};
    for (const [shape, isProtected] of cases(flags)) {
      await using stack = new AsyncDisposableStack();
      const outage = new Outage({ shape, isProtected, edges, seconds, ratePerSecond });
      const figures = await outage.run({ ...context, stack });
      for (const [name, value] of Object.entries(figures)) {
        sample[figureName(shape, isProtected, name)] = value;
      }
    }
    yield sample;
  }
}

interface Case {
  readonly shape: Shape;
  readonly isProtected: boolean;
  readonly edges: number;
  readonly seconds: number;
  readonly ratePerSecond: number;
}

/** One edge as it is watched. */
interface Watched {
  readonly host: Host;
  readonly traffic: Traffic;
  /** Monotonic ms of each good answer since the change was published. */
  readonly answersMs: number[];
}

class Outage {
  readonly #case: Case;
  readonly #stallsByName = new Map<string, number>();
  readonly #held = new Set<string>();

  constructor(one: Case) {
    this.#case = one;
  }

  async run(context: BenchContext): Promise<Readonly<Record<string, number>>> {
    const { shape, isProtected, seconds } = this.#case;
    const cluster = await LocalCluster.create(context);
    const machinePort = await startMachine(context.stack);
    const worker = await cluster.start({ name: "worker", kind: "agent", bootstrap: [] });
    await worker.ready();
    await publish(worker, machinePort);
    const watched = await this.#startEdges(cluster, worker);
    for (const { traffic } of watched) context.stack.defer(() => traffic.stop());
    context.say(
      `${shape}, protection ${isProtected ? "on" : "off"}: ${watched.length} edges serve`,
    );
    for (const { traffic } of watched) traffic.startWindow();
    const publishedMs = performance.now();
    for (const one of watched) noteAnswers(one, seconds * 1_000);
    await worker.post("transactions", [poisonOf(shape)]);
    await sleep(seconds * 1_000);
    return this.#figures(watched, publishedMs);
  }

  async #startEdges(cluster: LocalCluster, worker: Host): Promise<Watched[]> {
    const { edges, ratePerSecond } = this.#case;
    const hosts: Host[] = [];
    // One after another: a dozen that start at once on two cores would bounce for want of CPU.
    for (let at = 0; at < edges; at++) {
      const name = `edge-${at}`;
      const config = this.#edgeConfig();
      const onLog = (line: string): void => this.#onLog(name, line);
      const host = await cluster.start({ name, kind: "edge", bootstrap: [worker], config, onLog });
      await host.ready();
      hosts.push(host);
    }
    await untilAllKnow(hosts, edges + 1);
    const watched = hosts.map((host): Watched => {
      const origin = `http://127.0.0.1:${host.httpPort}`;
      const traffic = new Traffic({ pop: host.name, origin, host: HOSTNAME, ratePerSecond });
      return { host, traffic, answersMs: [] };
    });
    for (const { traffic } of watched) traffic.start();
    for (const { host, traffic } of watched) {
      if ((await traffic.nextAnswer(() => true, ANSWER_LIMIT_MS)) !== null) continue;
      throw new Error(`${host.name} gave no answer; see ${host.folder}`);
    }
    return watched;
  }

  #edgeConfig(): Record<string, Record<string, unknown>> {
    const { shape, isProtected } = this.#case;
    const off = { canary_ms: 0, notice_ms: 0, quarantine_ms: 1, fleet_bounces_max: 0 };
    return {
      fault: { enabled: true, stall_row: SHAPES[shape] },
      watchdog: { allow_fault_injection: true, ...(isProtected ? {} : off) },
    };
  }

  #onLog(name: string, line: string): void {
    if (line.includes('"event":"edge-bounced"')) {
      this.#stallsByName.set(name, (this.#stallsByName.get(name) ?? 0) + 1);
    } else if (line.includes('"event":"change-held"')) {
      const { table, key, version } = JSON.parse(line) as Record<string, unknown>;
      this.#held.add(`${String(table)} ${String(key)} ${String(version)}`);
    }
  }

  #figures(watched: readonly Watched[], publishedMs: number): Readonly<Record<string, number>> {
    const endMs = performance.now();
    const gaps = watched.map(({ host, traffic, answersMs }) => {
      const stalls = this.#stallsByName.get(host.name) ?? 0;
      return { stalls, traffic, ...gapsOf([publishedMs, ...answersMs, endMs]) };
    });
    const victims = gaps.filter(({ stalls }) => stalls > 0);
    const others = gaps.filter(({ stalls }) => stalls === 0);
    const longest = (some: typeof gaps): number =>
      some.length === 0 ? Number.NaN : Math.max(...some.map(({ longestMs }) => longestMs)) / 1_000;
    const sum = (some: typeof gaps, of: "failed" | "refused"): number =>
      some.reduce((before, { traffic }) => before + traffic.window[of], 0);
    const wholeMs = Math.max(publishedMs, ...gaps.map(({ lastGapEndMs }) => lastGapEndMs));
    const values = [
      victims.length,
      Math.max(0, ...gaps.map(({ stalls }) => stalls)),
      longest(victims),
      longest(others),
      sum(gaps, "refused"),
      sum(others, "failed"),
      sum(victims, "failed"),
      // Not whole at the end is not whole.
      wholeMs === endMs ? Number.NaN : (wholeMs - publishedMs) / 1_000,
      this.#held.size,
    ];
    const named = FIGURES.map(({ name }, at) => [name, values[at] ?? Number.NaN] as const);
    return Object.fromEntries(named.filter(([, value]) => !Number.isNaN(value)));
  }
}

/** Gaps between good answers; those that last count as being down. */
function gapsOf(times: readonly number[]): { longestMs: number; lastGapEndMs: number } {
  let longestMs = 0;
  let lastGapEndMs = 0;
  for (let at = 1; at < times.length; at++) {
    const [before = 0, now = 0] = [times[at - 1], times[at]];
    longestMs = Math.max(longestMs, now - before);
    if (now - before > DOWN_MS) lastGapEndMs = now;
  }
  return { longestMs, lastGapEndMs };
}

function noteAnswers({ traffic, answersMs }: Watched, forMs: number): void {
  void traffic.nextAnswer(() => {
    answersMs.push(performance.now());
    return false;
  }, forMs);
}

function cases(flags: ReadonlyMap<string, string>): readonly (readonly [Shape, boolean])[] {
  const all = (["unseen", "ordinary"] as const).flatMap((shape) =>
    [true, false].map((isProtected) => [shape, isProtected] as const),
  );
  const [only, protection] = [flags.get("only"), flags.get("protection")];
  return all.filter(
    ([shape, isProtected]) =>
      (only === undefined || only === shape) &&
      (protection === undefined || (protection === "on") === isProtected),
  );
}

function figureName(shape: Shape, isProtected: boolean, name: string): string {
  return `${shape}, ${isProtected ? "on" : "off"}: ${name}`;
}

function targetOf(shape: Shape, isProtected: boolean, name: string): Pick<FigureSpec, "target"> {
  const atMost: Readonly<Record<string, number>> = {
    "edges that stalled": shape === "unseen" ? 2 : Infinity,
    "most stalls of one edge": 1,
    // The apply budget, the jitter, and half a second for everything after.
    "longest without an answer, victims": 2.7,
    "longest without an answer, others": DOWN_MS / 1_000,
    "refused connections": 0,
    "requests lost on others": 0,
    "changes held": 1,
  };
  const most = atMost[name];
  return !isProtected || most === undefined || most === Infinity
    ? {}
    : { target: { atMost: most } };
}

async function publish(worker: Host, port: number): Promise<void> {
  await worker.put(`hostnames/${HOSTNAME}`, { app: "app" });
  for (let at = 0; at < MACHINES; at++) {
    await worker.put(`machines/machine-${at}`, machineOn(port, "app"));
  }
}

function poisonOf(shape: Shape): string {
  const { table, column, value } = SHAPES[shape];
  const key = table === "machines" ? "id" : "machine_id";
  return `UPDATE ${table} SET ${column} = '${value}' WHERE ${key} = 'machine-0'`;
}

const HOSTNAME = "hello.bench";
/** The others of the app serve on, whatever becomes of the first. */
const MACHINES = 10;
const ANSWER_LIMIT_MS = 30_000;
