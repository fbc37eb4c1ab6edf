/**
 * Patina beside other proxies on the same machine, in the same run, one after the other and in
 * another order each time: CPU per request, requests per second, latency at half load, for each kind
 * of traffic in cases.ts; memory per idle connection; two data-plane threads beside one.
 *
 * - All proxies are up, each in front of the same two machines and set up alike (bench/rivals/);
 *   those that are not measured are stopped (SIGSTOP).
 * - The proxies have one core, load and machines another.
 * - CPU per request is user and system time of the whole process tree over the requests of a closed
 *   loop, the supervisor, replica and watchdog of Patina included.
 * - Latencies are those of an open loop at a constant rate, for all alike half of what nginx did in
 *   the closed one; a request's clock starts when it was due.
 *
 * `--case NAMES`, `--rival NAMES` (with commas), `--seconds N` per measurement, `--markdown FILE`,
 * `--svg FILE`.
 */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { errorText } from "#base/errors.ts";
import {
  createCertificateAuthority,
  issueServerCertificate,
} from "../../replica/driver/certificates/certificates.ts";
import { sleep } from "../local-cluster.ts";
import { percentile, type Bench, type BenchContext, type Sample } from "../measure.ts";
import { CASES, GET_HOST, POST_HOST, type Case } from "./cases.ts";
import { allFigures, BESIDE, figureName, IDLE_ADDED, type What } from "./figures.ts";
import { idleMemoryKiB } from "./idle-connections.ts";
import { closedLoad, hasWrk, openLoad } from "./load.ts";
import { startNginxUpstream } from "./native-rivals.ts";
import { isPinned, LOAD_CORE, pinSelf } from "./pinning.ts";
import { svgOf } from "./picture.ts";
import { treeCpuMs } from "./process-tree.ts";
import { startUntilLine } from "./programs.ts";
import { markdownOf } from "./report.ts";
import { onlyRuns, rivalVersions, startRival, takesPart } from "./rivals.ts";
import type { Rival, Stage } from "./rivals.ts";
import { startTwoThreads, twoThreads } from "./two-threads.ts";

/** Three runs of three seconds unless told otherwise. */
export const bench: Bench = {
  about: "Patina beside nginx, HAProxy, Caddy and proxies in Node; --case, --rival, --seconds",
  defaultRuns: 3,
  figures: allFigures([...rivalVersions().keys()]),
  run,
  tell: markdownOf,
  write(report, flags) {
    const [markdown, svg] = [flags.get("markdown"), flags.get("svg")];
    if (markdown !== undefined) writeFileSync(markdown, markdownOf(report));
    if (svg !== undefined) writeFileSync(svg, svgOf(report));
  },
};

/** Figures of each run, as they come in. */
type Samples = Record<string, number>[];

/** What is measured and for how long. */
interface Plan {
  readonly cases: readonly Case[];
  readonly rivals: readonly string[];
  readonly hasIdle: boolean;
  readonly hasThreads: boolean;
  readonly seconds: number;
  readonly runs: number;
}

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const plan = planOf(context);
  describe(plan, context);
  const stage = await createStage(context);
  const rivals: Rival[] = [];
  for (const name of plan.rivals) {
    rivals.push(await startRival(name, stage));
    context.say(`${name} is up`);
  }
  const samples: Samples = Array.from({ length: plan.runs }, () => ({}));
  if (plan.hasIdle) await measureIdle({ context, rivals, samples });
  for (const rival of rivals) {
    onlyRuns(rival, rivals);
    // The first requests find caches empty and code not compiled.
    await closedLoad(CASES[0]!, rival, Math.min(plan.seconds, WARM_UP_SECONDS));
  }
  for (const one of plan.cases) await measureCase({ context, one, plan, rivals, samples });
  if (plan.hasThreads) await measureThreads({ stage, plan, rivals, samples });
  yield* samples;
}

function planOf({ flags, runs, note }: BenchContext): Plan {
  const wanted = flags.get("case")?.split(",");
  const isWanted = (name: string): boolean => wanted === undefined || wanted.includes(name);
  const known = [...CASES.map(({ name }) => name), "idle", "threads"];
  const strange = wanted?.filter((name) => !known.includes(name)) ?? [];
  if (strange.length > 0) throw new Error(`no case ${strange.join()}; there are ${known.join()}`);
  const versions = rivalVersions();
  const asked = flags.get("rival")?.split(",") ?? [...versions.keys()];
  const unknown = asked.filter((name) => !versions.has(name));
  if (unknown.length > 0) {
    throw new Error(`no rival ${unknown.join()}; there are ${[...versions.keys()].join()}`);
  }
  for (const name of asked) {
    if (versions.get(name) === null) note(`${name} is not installed: not measured`);
  }
  const seconds = Number(flags.get("seconds") ?? SECONDS);
  if (!Number.isInteger(seconds) || seconds < 1) throw new Error("--seconds is a whole number");
  return {
    cases: CASES.filter(({ name }) => isWanted(name)),
    rivals: asked.filter((name) => versions.get(name) !== null),
    hasIdle: isWanted("idle"),
    hasThreads: isWanted("threads") && asked.includes("patina"),
    seconds,
    runs,
  };
}

function describe(plan: Plan, { note, say }: BenchContext): void {
  const versions = rivalVersions();
  const named = plan.rivals.map((name) => `${name} ${versions.get(name)}`);
  note(`measured: ${named.join(", ")} (node-net is a bare socket in Node that answers)`);
  if (versions.get("nginx") === null) note("the machine for GETs is ours, nginx not being there");
  note(
    `closed loop by ${hasWrk ? "wrk, WebSocket and full handshakes by our own generator" : "our own generator, wrk not being installed"}; ` +
      "open loop at a constant rate by our own, a request's clock starting when it was due",
  );
  note(
    isPinned
      ? `proxies on one core, load and machines on core ${LOAD_CORE}; others stopped meanwhile`
      : "one core, or no taskset: nothing is pinned",
  );
  const each = plan.seconds * 2 + PAUSE_SECONDS * 2 + START_SECONDS * 2;
  const measurements = plan.cases.length * plan.rivals.length * plan.runs;
  const others = (plan.hasIdle ? plan.rivals.length * 4 : 0) + (plan.hasThreads ? 12 : 0);
  const seconds = measurements * each + others * plan.runs + plan.rivals.length * 5;
  say(`takes about ${Math.ceil(seconds / 60)} minutes`);
}

async function createStage(context: BenchContext): Promise<Stage> {
  const { stack } = context;
  const folder = mkdtempSync(join(tmpdir(), "patina-bench-"));
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  // Started by root, nginx serves as somebody else, who has to come through here.
  chmodSync(folder, 0o711);
  pinSelf();
  const certFile = join(folder, "server.pem");
  const keyFile = join(folder, "server.key");
  const nowMs = Date.now();
  const authority = await createCertificateAuthority({ nowMs });
  const server = await issueServerCertificate(authority, {
    nowMs,
    addresses: ["127.0.0.1"],
    names: [GET_HOST, POST_HOST],
  });
  writeFileSync(certFile, server.certificatePem);
  writeFileSync(keyFile, server.keyPem, { mode: 0o600 });
  const command = [process.execPath, UPSTREAM];
  const { line } = await startUntilLine(command, { stack, cores: LOAD_CORE });
  const postUpstream = Number(line);
  const hasNginx = rivalVersions().get("nginx") !== null;
  const getUpstream = hasNginx ? await startNginxUpstream({ folder, context }) : postUpstream;
  return { context, folder, certFile, keyFile, getUpstream, postUpstream };
}

/** The closed loop of all rivals in all runs, then the open one at the rate that comes of it. */
async function measureCase(parts: {
  readonly context: BenchContext;
  readonly one: Case;
  readonly plan: Plan;
  readonly rivals: readonly Rival[];
  readonly samples: Samples;
}): Promise<void> {
  const { context, one, plan, rivals, samples } = parts;
  context.say(`${one.name}: ${one.about}`);
  const taking = new Set(rivals.filter((rival) => takesPart(rival, one)));
  const each = async (measure: (rival: Rival, sample: Record<string, number>) => Promise<void>) => {
    for (const [at, sample] of samples.entries()) {
      for (const rival of rotated([...taking], at)) {
        try {
          onlyRuns(rival, rivals);
          await measure(rival, sample);
        } catch (error) {
          taking.delete(rival);
          context.note(`${one.name}: ${rival.name} is left out: ${errorText(error)}`);
        }
      }
    }
  };
  const tell = (rival: Rival, line: string): void =>
    context.say(`  ${rival.name.padEnd(10)} ${line}`);
  await each(async (rival, sample) => {
    await closedLoad(one, rival, 1);
    const told = await closedFigures(one, rival, plan.seconds);
    addTo(sample, one.name, rival, told);
    tell(
      rival,
      `${told.CPU?.toFixed(1)} us, ${told.rate?.toFixed(0)}/s, ${told.busy?.toFixed(0)} %`,
    );
  });
  const rate = halfOfNginx(one, [...taking], samples);
  if (rate !== null) {
    context.note(`${one.name}: latency at ${rate.toFixed(0)} requests per second`);
    await each(async (rival, sample) => {
      await sleep(PAUSE_SECONDS * 1_000);
      const told = await openFigures(one, rival, { seconds: plan.seconds, rate });
      addTo(sample, one.name, rival, told);
      const { p50, p99, answered } = told;
      tell(
        rival,
        `p50 ${p50?.toFixed(2)} ms, p99 ${p99?.toFixed(2)} ms, ${answered?.toFixed(1)} %`,
      );
    });
  }
  for (const sample of samples) compareWithNginx(one, sample);
}

/** Some of the figures of one rival in one case. */
type Told = Partial<Record<What, number>>;

async function closedFigures(one: Case, rival: Rival, forSeconds: number): Promise<Told> {
  const beforeMs = treeCpuMs(rival.pid);
  const { requests, seconds } = await closedLoad(one, rival, forSeconds);
  const usedMs = treeCpuMs(rival.pid) - beforeMs;
  const rate = requests / seconds;
  return {
    CPU: (usedMs * 1_000) / requests,
    rate,
    busy: usedMs / (10 * seconds),
    ...(one.movedBytes === undefined ? {} : { throughput: (rate * one.movedBytes) / 1e6 }),
  };
}

async function openFigures(
  one: Case,
  rival: Rival,
  load: { readonly seconds: number; readonly rate: number },
): Promise<Told> {
  const { requests, failures, p50Ms, p99Ms, p999Ms } = await openLoad(one, rival, load);
  const answered = (100 * requests) / (requests + failures);
  return { p50: p50Ms, p99: p99Ms, "p99.9": p999Ms, answered };
}

function addTo(sample: Record<string, number>, one: string, rival: Rival, told: Told): void {
  for (const [what, value] of Object.entries(told)) {
    if (Number.isFinite(value)) sample[figureName(one, rival.name, what as What)] = value;
  }
}

/** Half of nginx's median rate, or, without nginx, of the fastest one's; null without any. */
function halfOfNginx(one: Case, rivals: readonly Rival[], samples: Samples): number | null {
  const rateOf = (name: string): number =>
    percentile(
      samples.flatMap((sample) => sample[figureName(one.name, name, "rate")] ?? []),
      0.5,
    );
  const nginx = rateOf("nginx");
  if (nginx > 0) return nginx / 2;
  const fastest = Math.max(...rivals.map(({ name }) => rateOf(name) || 0), 0);
  return fastest > 0 ? fastest / 2 : null;
}

function compareWithNginx(one: Case, sample: Record<string, number>): void {
  const pair = (what: What): [number, number] => [
    sample[figureName(one.name, "patina", what)] ?? Number.NaN,
    sample[figureName(one.name, "nginx", what)] ?? Number.NaN,
  ];
  const put = (name: string, value: number): void => {
    if (Number.isFinite(value)) sample[name] = value;
  };
  for (const what of ["CPU", "throughput"] as const) {
    const [patina, nginx] = pair(what);
    put(figureName(one.name, BESIDE.ratio, what), patina / nginx);
  }
  const [patina, nginx] = pair("p99");
  put(figureName(one.name, BESIDE.difference, "p99"), patina - nginx);
}

async function measureIdle(parts: {
  readonly context: BenchContext;
  readonly rivals: readonly Rival[];
  readonly samples: Samples;
}): Promise<void> {
  const { context, rivals, samples } = parts;
  context.say(`idle: ${IDLE_CONNECTIONS} connections more in each run`);
  for (const rival of rivals) {
    onlyRuns(rival, rivals);
    const options = { connections: IDLE_CONNECTIONS, runs: samples.length };
    const figures = await idleMemoryKiB(rival, options);
    context.say(`  ${rival.name.padEnd(10)} ${figures.map((one) => one.toFixed(1)).join(" ")} KiB`);
    for (const [at, memory] of figures.entries()) addTo(samples[at]!, "idle", rival, { memory });
  }
  for (const sample of samples) {
    const patina = sample[figureName("idle", "patina", "memory")] ?? Number.NaN;
    const added = patina - (sample[figureName("idle", "node-net", "memory")] ?? Number.NaN);
    if (Number.isFinite(added)) sample[IDLE_ADDED] = added;
  }
}

async function measureThreads(parts: {
  readonly stage: Stage;
  readonly plan: Plan;
  readonly rivals: Rival[];
  readonly samples: Samples;
}): Promise<void> {
  const { stage, plan, rivals, samples } = parts;
  const one = rivals.find(({ name }) => name === "patina");
  if (one === undefined) return;
  stage.context.say("threads: two data-plane threads beside one");
  const two = await startTwoThreads(stage);
  rivals.push(two);
  for (const sample of samples) {
    const only = (rival: Rival): void => onlyRuns(rival, rivals);
    Object.assign(sample, await twoThreads({ one, two }, { seconds: plan.seconds, only }));
  }
}

/** Another one begins each time. */
function rotated<T>(list: readonly T[], by: number): T[] {
  const at = by % Math.max(list.length, 1);
  return [...list.slice(at), ...list.slice(0, at)];
}

const SECONDS = 3;
const WARM_UP_SECONDS = 3;
/** Before an open loop: what the closed one left behind is over. */
const PAUSE_SECONDS = 0.3;
/** For the estimate: a second of warm-up, and the start of a process. */
const START_SECONDS = 0.7;
const IDLE_CONNECTIONS = 1_000;
const UPSTREAM = fileURLToPath(new URL("./upstream.ts", import.meta.url));
