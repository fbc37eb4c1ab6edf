/**
 * The demo's tour: what Patina is for, step by step, each step checked by counting under steady
 * traffic on every PoP.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { request } from "undici";
import { errorText } from "#base/errors.ts";
import { PLACES } from "./geography.ts";
import { Traffic, type Answer, type TrafficCounts } from "./load.ts";
import { STALL_PATH, type HostSpec, type Platform } from "./platform.ts";

/** How a step went. */
export interface StepResult {
  readonly title: string;
  /** What was measured, for people. */
  readonly facts: readonly string[];
  /** Why it failed; empty = it passed. */
  readonly faults: readonly string[];
}

/** Hosts of the demo; the last PoP starts late. */
export const HOSTS: readonly HostSpec[] = [
  { name: "fra-worker", kind: "worker", place: PLACES.fra },
  { name: "iad-worker", kind: "worker", place: PLACES.iad },
  { name: "sin-worker", kind: "worker", place: PLACES.sin },
  { name: "gru-worker", kind: "worker", place: PLACES.gru },
  { name: "ams-pop", kind: "edge", place: PLACES.ams },
  { name: "gru-pop", kind: "edge", place: PLACES.gru },
  { name: "nrt-pop", kind: "edge", place: PLACES.nrt },
  { name: "syd-pop", kind: "edge", place: PLACES.syd },
];

/** Machines of the demo; the last is published during the tour. */
export const MACHINES = [
  { id: "hello-fra", workerName: "fra-worker" },
  { id: "hello-iad", workerName: "iad-worker" },
  { id: "hello-sin", workerName: "sin-worker" },
  { id: "hello-gru", workerName: "gru-worker" },
] as const;

/** The PoP that joins late. */
export const LATE_POP = "syd-pop";
/** Where every host but itself joins through. */
export const SEED = "fra-worker";
/** Requests per second and PoP, throughout. */
export const RATE_PER_SECOND = 200;

const LATE_MACHINE = "hello-gru";
const STALLED_POP = "nrt-pop";
const NEAREST: Readonly<Record<string, string>> = {
  "ams-pop": "hello-fra",
  "gru-pop": "hello-iad",
  "nrt-pop": "hello-sin",
};

/** Walks through the steps. Starts the hosts first; the caller stops the platform. */
export class Tour {
  readonly trafficByPop = new Map<string, Traffic>();
  readonly results: StepResult[] = [];
  readonly #platform: Platform;
  readonly #onStep: (result: StepResult) => void;

  constructor(platform: Platform, onStep: (result: StepResult) => void) {
    this.#platform = platform;
    this.#onStep = onStep;
  }

  /** Starts three PoPs, four worker hosts and three machines, and traffic on each PoP. */
  async start(): Promise<void> {
    const seed = this.#platform.gossipAddress(SEED);
    const first = HOSTS.filter((host) => host.name !== LATE_POP);
    await Promise.all(
      first.map((host) => this.#platform.startHost(host.name, host.name === SEED ? [] : [seed])),
    );
    await this.#platform.publishApp(SEED);
    for (const { id } of MACHINES) {
      if (id === LATE_MACHINE) continue;
      await this.#platform.startMachine(id);
      await this.#platform.publishMachine(id, "started");
    }
    const pops = Object.keys(NEAREST);
    // The first machines are news to the PoPs too; from here on no request may fail.
    await Promise.all(pops.map((pop) => this.#platform.waitRouted(pop)));
    for (const pop of pops) this.#startTraffic(pop);
  }

  /** Runs every step in order; a failed one does not stop the tour. */
  async run(): Promise<void> {
    const steps: readonly [string, () => Promise<Omit<StepResult, "title">>][] = [
      ["each PoP answers from its nearest machine", () => this.#nearest()],
      ["a machine is killed: all PoPs route elsewhere", () => this.#machineKilled()],
      ["a machine is published in a PoP's own region: traffic moves", () => this.#published()],
      ["a PoP's event loop is blocked for ever: it is bounced", () => this.#stalled()],
      ["a fourth PoP starts empty and catches up", () => this.#latePop()],
      ["sqlite3 reads a replica's file while it runs", async () => this.#sqlite()],
    ];
    for (const [title, step] of steps) this.#conclude(title, await runStep(step));
  }

  /** Stops the traffic, waiting for what is in flight. */
  async stop(): Promise<void> {
    await Promise.all([...this.trafficByPop.values()].map((traffic) => traffic.stop()));
  }

  /**
   * The last step, after `stop`: every request is accounted for, also one that failed after its
   * step had been judged.
   */
  account(): void {
    const facts: string[] = [];
    const faults: string[] = [];
    for (const [pop, { total }] of this.#pops()) {
      const failures = total.failed + total.refused;
      facts.push(`${pop}: ${total.sent} sent, ${total.answered} answered, ${failures} failed`);
      // Connections broke with the process that was killed; nothing was to be answered wrongly.
      const isExcused = pop === STALLED_POP && total.refused + wrongAnswers(total).length === 0;
      if (!isExcused) faults.push(...failuresOf(pop, total));
      if (total.sent !== total.answered + failures) faults.push(`${pop}: requests without an end`);
    }
    this.#conclude("every request of the tour is accounted for", { facts, faults });
  }

  #conclude(title: string, outcome: Omit<StepResult, "title">): void {
    const result = { title, ...outcome };
    this.results.push(result);
    this.#onStep(result);
  }

  /** Waits for a second's answers on each PoP. */
  async #allAnswer(): Promise<string[]> {
    const all = this.#pops().map(([, traffic]) => answers(traffic, RATE_PER_SECOND));
    return (await Promise.all(all)).flat();
  }

  async #nearest(): Promise<Omit<StepResult, "title">> {
    const faults: string[] = [];
    const facts: string[] = [];
    // Distances are guessed until they are measured; each PoP settles once it has measured all.
    const settled = await Promise.all(
      this.#pops().map(([pop, traffic]) => this.#settlesOn(traffic, NEAREST[pop] as string)),
    );
    this.#startWindows();
    faults.push(...(await this.#allAnswer()));
    this.#pops().forEach(([pop, traffic], index) => {
      const wanted = NEAREST[pop] as string;
      const counts = traffic.window;
      facts.push(`${pop} -> ${wanted}, median ${traffic.medianMs().toFixed(0)} ms`);
      if (!settled[index]) faults.push(`${pop} never settled on ${wanted}`);
      if (counts.answersByMachine.size !== 1 || !counts.answersByMachine.has(wanted)) {
        faults.push(`${pop} answered from ${machinesOf(counts)}`);
      }
      faults.push(...failuresOf(pop, counts));
    });
    return { facts, faults };
  }

  async #machineKilled(): Promise<Omit<StepResult, "title">> {
    this.#startWindows();
    const traffic = this.#traffic("ams-pop");
    const killedMs = performance.now();
    const elsewhere = traffic.nextAnswer(
      (answer) => answer.machineId !== "hello-fra",
      STEP_LIMIT_MS,
    );
    this.#platform.kill("hello-fra", "SIGKILL");
    const first = await elsewhere;
    if (first === null) return failed("ams-pop never answered from another machine");
    // No PoP is to use the machine again, and none is to lose a request over it.
    const faults = await this.#allAnswer();
    const movedMs = first.sentMs + first.latencyMs - killedMs;
    faults.push(...this.#pops().flatMap(([pop, one]) => failuresOf(pop, one.window)));
    return {
      facts: [
        `ams-pop -> ${first.machineId}, first answer ${movedMs.toFixed(0)} ms after the kill`,
        `failed requests: ${sum(this.#pops(), (counts) => counts.failed + counts.refused)}`,
      ],
      faults,
    };
  }

  async #published(): Promise<Omit<StepResult, "title">> {
    this.#startWindows();
    await this.#platform.startMachine(LATE_MACHINE);
    const traffic = this.#traffic("gru-pop");
    const publishedMs = performance.now();
    const moved = traffic.nextAnswer((answer) => answer.machineId === LATE_MACHINE, STEP_LIMIT_MS);
    await this.#platform.publishMachine(LATE_MACHINE, "started");
    const first = await moved;
    if (first === null) return failed(`gru-pop never answered from ${LATE_MACHINE}`);
    const settled = await this.#settlesOn(traffic, LATE_MACHINE);
    const faults = this.#pops().flatMap(([pop, one]) => failuresOf(pop, one.window));
    if (!settled) faults.push(`gru-pop did not settle on ${LATE_MACHINE}`);
    return {
      facts: [
        `gru-pop -> ${LATE_MACHINE}, first answer ` +
          `${(first.sentMs + first.latencyMs - publishedMs).toFixed(0)} ms after the publish`,
      ],
      faults,
    };
  }

  async #stalled(): Promise<Omit<StepResult, "title">> {
    this.#startWindows();
    const traffic = this.#traffic(STALLED_POP);
    const { httpPort, folder } = this.#platform.host(STALLED_POP);
    const stalledMs = performance.now();
    void blockLoop(`http://127.0.0.1:${httpPort}${STALL_PATH}`, this.#platform.hostname);
    // Answers to requests that left before the block may still be under way: only one that is sent
    // later counts, and it can be answered by the next process alone.
    const first = await traffic.nextAnswer(
      (answer) => answer.sentMs > stalledMs + BLOCK_REACHED_MS,
      STEP_LIMIT_MS,
    );
    if (first === null) return failed("nrt-pop never answered again");
    const faults = await this.#allAnswer();
    const evidence = stallEvidence(join(folder, "state", "stalls"));
    if (!evidence?.includes(": loop main in ")) faults.push(`evidence of the stall: ${evidence}`);
    const wrong = wrongAnswers(traffic.window);
    if (wrong.length > 0) faults.push(`${STALLED_POP} answered ${wrong.join(", ")}`);
    for (const [pop, one] of this.#pops()) {
      if (one.window.refused > 0) faults.push(`${pop} refused ${one.window.refused} connections`);
      if (pop !== STALLED_POP) faults.push(...failuresOf(pop, one.window));
    }
    return {
      facts: [
        `first routed answer ${(first.sentMs + first.latencyMs - stalledMs).toFixed(0)} ms after the stall`,
        `refused connections: ${sum(this.#pops(), (counts) => counts.refused)}; ` +
          `requests lost with the killed process: ${traffic.window.failed}`,
        `evidence: ${evidence ?? "none"}`,
      ],
      faults,
    };
  }

  async #latePop(): Promise<Omit<StepResult, "title">> {
    this.#startWindows();
    const startedMs = performance.now();
    await this.#platform.startHost(LATE_POP, [this.#platform.gossipAddress(SEED)]);
    const traffic = this.#startTraffic(LATE_POP);
    const first = await traffic.nextAnswer(() => true, STEP_LIMIT_MS);
    if (first === null) return failed(`${LATE_POP} never answered`);
    const settled = await this.#settlesOn(traffic, "hello-sin");
    const faults = this.#pops().flatMap(([pop, one]) => failuresOf(pop, one.window));
    if (!settled) faults.push(`${LATE_POP} did not settle on hello-sin`);
    return {
      facts: [
        `${LATE_POP}: first routed answer ` +
          `${(first.sentMs + first.latencyMs - startedMs).toFixed(0)} ms after its process was started`,
        `then -> hello-sin, median ${traffic.medianMs().toFixed(0)} ms`,
      ],
      faults,
    };
  }

  #sqlite(): Omit<StepResult, "title"> {
    const file = join(this.#platform.host("ams-pop").folder, "patina.db");
    const sql = "SELECT group_concat(id || ' ' || state, ', ') FROM machines ORDER BY id";
    const run = spawnSync("sqlite3", ["-readonly", file, sql], { encoding: "utf8" });
    if ((run.error as NodeJS.ErrnoException | undefined)?.code === "ENOENT") {
      return { facts: ["sqlite3 is not installed here: step left out"], faults: [] };
    }
    if (run.error) return failed(errorText(run.error));
    const rows = run.stdout.trim();
    const isRight = run.status === 0 && rows.includes("hello-sin started");
    return { facts: [rows], faults: isRight ? [] : [`sqlite3: ${run.stderr.trim() || rows}`] };
  }

  /** Whether a run of answers all come from one machine within the limit. */
  async #settlesOn(traffic: Traffic, machineId: string): Promise<boolean> {
    let run = 0;
    const last = await traffic.nextAnswer((answer: Answer) => {
      run = answer.machineId === machineId ? run + 1 : 0;
      return run >= SETTLED_RUN;
    }, STEP_LIMIT_MS);
    return last !== null;
  }

  #startTraffic(pop: string): Traffic {
    const { httpPort } = this.#platform.host(pop);
    const traffic = new Traffic({
      pop,
      origin: `http://127.0.0.1:${httpPort}`,
      host: this.#platform.hostname,
      ratePerSecond: RATE_PER_SECOND,
    });
    this.trafficByPop.set(pop, traffic);
    traffic.start();
    return traffic;
  }

  #traffic(pop: string): Traffic {
    const traffic = this.trafficByPop.get(pop);
    if (!traffic) throw new Error(`no traffic runs on ${pop}`);
    return traffic;
  }

  #pops(): [string, Traffic][] {
    return [...this.trafficByPop];
  }

  #startWindows(): void {
    for (const traffic of this.trafficByPop.values()) traffic.startWindow();
  }
}

async function runStep(
  step: () => Promise<Omit<StepResult, "title">>,
): Promise<Omit<StepResult, "title">> {
  try {
    return await step();
  } catch (error) {
    return failed(errorText(error));
  }
}

function failed(fault: string): Omit<StepResult, "title"> {
  return { facts: [], faults: [fault] };
}

/** Waits for `count` further answers; what is said when they do not come. */
async function answers(traffic: Traffic, count: number): Promise<string[]> {
  let seen = 0;
  const last = await traffic.nextAnswer(() => ++seen >= count, STEP_LIMIT_MS);
  return last === null
    ? [`${traffic.pop} answered ${seen} of ${count} requests, then fell silent`]
    : [];
}

/** Never answered: the loop that would is blocked, and its process is killed. */
async function blockLoop(url: string, host: string): Promise<void> {
  try {
    const response = await request(url, { headers: { host } });
    await response.body.dump();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
  }
}

function stallEvidence(folder: string): string | null {
  const files = readdirSync(folder).filter((file) => file.endsWith(".json"));
  const newest = files.toSorted().at(-1);
  if (newest === undefined) return null;
  const evidence = JSON.parse(readFileSync(join(folder, newest), "utf8")) as {
    loop: string;
    stack: { kind: string; frames?: { function: string }[] };
  };
  const top = evidence.stack.frames?.[0]?.function ?? evidence.stack.kind;
  return `${newest}: loop ${evidence.loop} in ${top}`;
}

function failuresOf(pop: string, counts: TrafficCounts): string[] {
  if (counts.failed + counts.refused === 0) return [];
  const kinds = [...counts.failures].map(([kind, count]) => `${count} x ${kind}`).join(", ");
  return [`${pop} failed ${counts.failed + counts.refused} of ${counts.sent} requests: ${kinds}`];
}

/** Kinds of failures that are answers: a status other than 200. */
function wrongAnswers(counts: TrafficCounts): string[] {
  return [...counts.failures.keys()].filter((kind) => /^\d{3}\b/.test(kind));
}

function machinesOf(counts: TrafficCounts): string {
  return [...counts.answersByMachine].map(([id, count]) => `${id} (${count})`).join(", ");
}

function sum(pops: readonly [string, Traffic][], pick: (counts: TrafficCounts) => number): number {
  return pops.reduce((total, [, traffic]) => total + pick(traffic.window), 0);
}

const STEP_LIMIT_MS = 15_000;
/** A second of answers, all from one machine. */
const SETTLED_RUN = 100;
/** A request on loopback reaches the loop it blocks well within this. */
const BLOCK_REACHED_MS = 100;
