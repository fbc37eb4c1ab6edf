/**
 * The supervisor: holds the listening sockets, runs one edge process on them, bounces it, alerts.
 *
 * `RestartPolicy` decides about starts and ends, `StallDetector` about an edge whose pipe fell
 * silent (so that a supervisor that overslept kills nobody). This is their driver: it spawns,
 * signals, reads evidence and writes alerts, and imports nothing but Node's own modules, because it
 * must start fast and never need a bounce itself.
 */
import { constants, hostname } from "node:os";
import { errorText } from "#base/errors.ts";
import { type Logger, createLogger } from "#base/logger.ts";
import { workText } from "../core/alert-outbox.ts";
import type { PipeLine } from "../core/pipe-lines.ts";
import { type RestartInput, type RestartOutput, RestartPolicy } from "../core/restart-policy.ts";
import { type StallFacts, StallDetector } from "../core/stall-detector.ts";
import { resourcesOf, threadsOf } from "../driver/proc-facts.ts";
import { newStallId, readStall, stallFile, writeStall } from "../driver/stall-files.ts";
import { writeLogLine } from "../driver/write-line.ts";
import type { StallEvidence } from "../types.ts";
import { Alerts } from "./driver/alerts.ts";
import { type EdgeProcess, startEdge } from "./driver/edge-process.ts";
import { type HeldSocket, holdSockets } from "./driver/held-sockets.ts";
import { EXIT, LASTING_EXIT_CODES } from "./exit-codes.ts";
import { ALERT_RULES, type SupervisorConfig } from "./supervisor-config.ts";

/** Runs until the edge is stopped for good; the answer is the exit code. */
export async function runSupervisor(config: SupervisorConfig, configPath: string): Promise<number> {
  const log = createLog();
  const held = await holdSockets(config.listen);
  if (!held.ok) {
    log.error("listen-failed", held.error.message);
    return held.error.exitCode;
  }
  for (const { name, host, port } of held.value) {
    log.info?.("listening", `holding ${name}`, { name, host, port });
  }
  return await new Supervisor({ config, configPath, sockets: held.value, log }).run();
}

/** Every line of `severity`, where one is given; else each by its level. */
function createLog(severity?: number): Logger {
  return createLogger({
    level: "info",
    nowMs: () => Date.now(),
    write: (line, level) => writeLogLine(line, severity ?? level),
    fields: { process: "supervisor" },
  });
}

interface SupervisorParts {
  readonly config: SupervisorConfig;
  readonly configPath: string;
  readonly sockets: readonly HeldSocket[];
  readonly log: Logger;
}

/** The edge that runs at the moment, and what it has told. */
interface EdgeRun {
  readonly process: EdgeProcess;
  readonly startedMs: number;
  /** Signs of life so far. */
  beats: number;
  /** Newest evidence of this run, of a stall that leads to a bounce or of a crash. */
  stallId: string | null;
  isReady: boolean;
  /** Set when the edge ended unasked; the alert waits for the rest of its pipe. */
  bounce: Extract<RestartOutput, { kind: "bounced" }> | null;
}

class Supervisor {
  readonly #parts: SupervisorParts;
  readonly #log: Logger;
  readonly #alerts: Alerts;
  readonly #policy: RestartPolicy;
  readonly #silence: StallDetector;
  readonly #pollPeriodMs: number;
  #run: EdgeRun | null = null;
  /** The run before the present one, from its exit until its alert. */
  #ended: EdgeRun | null = null;
  #timer: NodeJS.Timeout | undefined;
  #finish: (code: number) => void = () => undefined;

  constructor(parts: SupervisorParts) {
    const { config, log } = parts;
    this.#parts = parts;
    this.#log = log;
    this.#alerts = new Alerts({
      logs: { 2: createLog(2), 3: log },
      stateFolder: config.stateFolder,
      hostName: hostname(),
      rules: { ...ALERT_RULES, ...config.alerts },
    });
    this.#policy = new RestartPolicy({
      lastingCodes: LASTING_EXIT_CODES,
      crashLoopCode: EXIT.crashLoop,
      signalNumbers: constants.signals,
      drainLimitMs: config.drainLimitMs ?? 60_000,
      crashLoopExits: config.crashLoopExits ?? 5,
      crashLoopWindowMs: 60_000,
      backOffFirstMs: config.backOffFirstMs ?? 1000,
      backOffMaxMs: 30_000,
      giveUpExits: config.giveUpExits ?? 10,
    });
    const silenceLimitMs = config.silenceLimitMs ?? 10_000;
    const bootSilenceLimitMs = config.bootSilenceLimitMs ?? 30_000;
    this.#pollPeriodMs = Math.min(500, silenceLimitMs / 4);
    this.#silence = new StallDetector({
      loops: [{ action: "bounce", budgets: silenceBudgets(bootSilenceLimitMs, silenceLimitMs) }],
      pollPeriodMs: this.#pollPeriodMs,
      nextJitterMs: () => 0,
    });
  }

  async run(): Promise<number> {
    const finished = new Promise<number>((resolve) => (this.#finish = resolve));
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => this.#decide({ kind: "stop", signal }));
    }
    process.on("SIGHUP", () => this.#decide({ kind: "reload" }));
    const poll = setInterval(() => this.#pollSilence(), this.#pollPeriodMs);
    this.#decide({ kind: "start" });
    const code = await finished;
    clearInterval(poll);
    clearTimeout(this.#timer);
    await this.#alerts.settle(ALERT_LIMIT_MS);
    return code;
  }

  #decide(input: RestartInput): void {
    this.#policy.handle(input, performance.now());
    for (const output of this.#policy.drain()) this.#perform(output);
    clearTimeout(this.#timer);
    const dueMs = this.#policy.deadlineMs();
    if (dueMs === Infinity) return;
    const waitMs = Math.max(Math.ceil(dueMs - performance.now()), 1);
    this.#timer = setTimeout(() => this.#decide({ kind: "tick" }), waitMs);
  }

  #perform(output: RestartOutput): void {
    switch (output.kind) {
      case "spawn":
        return this.#spawn();
      case "signal":
        this.#run?.process.signal(output.signal);
        return;
      case "bounced":
        if (this.#ended !== null) this.#ended.bounce = output;
        return;
      case "finish":
        return this.#end(output);
    }
  }

  #spawn(): void {
    const { config, configPath, sockets } = this.#parts;
    const edge: EdgeProcess = startEdge(
      { config, configPath, sockets },
      {
        line: (line) => this.#onLine(run, line),
        exited: (code, signal) => {
          this.#ended = run;
          if (this.#run === run) this.#run = null;
          this.#decide({ kind: "exited", code, signal });
        },
        closed: () => this.#alertBounce(run),
      },
    );
    const run: EdgeRun = {
      process: edge,
      startedMs: performance.now(),
      beats: 0,
      stallId: null,
      isReady: false,
      bounce: null,
    };
    this.#run = run;
  }

  #onLine(run: EdgeRun, line: PipeLine): void {
    run.beats += 1;
    // An edge that is ready again, because its disk has room again, is none that was started.
    if (line.kind === "ready" && this.#run === run && !run.isReady) {
      run.isReady = true;
      const bootMs = Math.round(performance.now() - run.startedMs);
      this.#log.info?.("edge-ready", "the edge answers", { pid: run.process.pid, bootMs });
      this.#decide({ kind: "ready" });
      this.#alerts.resolve("crash-loop", "");
    } else if (line.kind === "alert") {
      const { alert } = line;
      this.#alerts.raise({ ...alert, fields: { ...alert.fields, pid: run.process.pid } });
    } else if (line.kind === "stall") {
      this.#onEvidence(run, line.id);
    }
  }

  /** Evidence of a loop that is only reported has its alert at once: no bounce will follow. */
  #onEvidence(run: EdgeRun, id: string): void {
    const evidence = readStall(this.#parts.config.stateFolder, id);
    if (evidence.ok && evidence.value.action === "report") {
      const kind = evidence.value.kind === "crash" ? "loop-crashed" : "loop-stalled";
      const fields = this.#evidenceFields(id);
      this.#alerts.raise({ kind, subject: id, msg: happened(evidence.value), fields });
    } else {
      run.stallId = id;
    }
  }

  #pollSilence(): void {
    const run = this.#run;
    const reading = {
      isWatched: run !== null,
      // Runs differ in pid, so a new one is a sign of life too.
      beats: run === null ? 0 : run.process.pid * 1e9 + run.beats,
      phase: run === null || run.beats === 0 ? "boot" : "steady",
      signs: null,
      starvedMs: 0,
    } as const;
    const input = { kind: "poll", wallMs: Date.now(), loops: [reading] } as const;
    this.#silence.handle(input, performance.now());
    for (const output of this.#silence.drain()) {
      if (output.kind === "accuse" && run !== null) this.#killSilent(run, output.stall);
    }
  }

  #killSilent(run: EdgeRun, stall: StallFacts): void {
    const { stateFolder } = this.#parts.config;
    const evidence = silenceEvidence(run.process.pid, stall);
    try {
      writeStall(stateFolder, evidence, STALL_FILES_MAX);
      run.stallId = evidence.id;
    } catch (error) {
      const fields = { error: errorText(error) };
      this.#log.error("evidence-lost", "evidence of a silent edge could not be written", fields);
    }
    run.process.signal("SIGKILL");
  }

  /** One alert per bounce, but for a crash loop: then one in all, and a line for each. */
  #alertBounce(run: EdgeRun): void {
    const { bounce, stallId } = run;
    if (bounce === null) return;
    const { code, signal, wasReady, delayMs } = bounce;
    const evidence = stallId === null ? null : readStall(this.#parts.config.stateFolder, stallId);
    const what = evidence?.ok === true ? `: ${happened(evidence.value)}` : "";
    const msg = `the edge ended (${signal ?? `exit code ${code}`}) and is started again${what}`;
    const fields = {
      pid: run.process.pid,
      exitCode: code,
      signal,
      wasReady,
      restartDelayMs: delayMs,
      ...(stallId === null ? {} : this.#evidenceFields(stallId)),
    };
    if (delayMs === 0) {
      const subject = stallId ?? `pid ${run.process.pid}`;
      return this.#alerts.raise({ kind: "edge-bounced", subject, msg, fields });
    }
    this.#log.warn?.("edge-bounced", msg, fields);
    const loop = `the edge ends again and again before it is ready${what}`;
    this.#alerts.raise({ kind: "crash-loop", subject: "", msg: loop, fields });
  }

  #evidenceFields(id: string): Readonly<Record<string, unknown>> {
    const { stateFolder } = this.#parts.config;
    const file = stallFile(stateFolder, id);
    const evidence = readStall(stateFolder, id);
    if (!evidence.ok) return { stall: id, file, evidenceProblem: evidence.error };
    const { kind, loop, phase, isLivelock, budgetMs, silentMs, breadcrumb, error } = evidence.value;
    const { stack } = evidence.value;
    const at = stack.kind === "javascript" ? topFrame(stack.frames) : stack.reason;
    const where = { kind, loop, phase, isLivelock, budgetMs, silentMs };
    return { stall: id, file, ...where, error, breadcrumb, at };
  }

  #end({ code, reason }: Extract<RestartOutput, { kind: "finish" }>): void {
    if (reason === "crash loop") {
      const msg = "the edge ended again and again before it was ready; giving up";
      const fields = { exitCode: code };
      this.#alerts.raise({ kind: "crash-loop", subject: "given up", msg, fields });
    } else {
      this.#log.info?.("supervisor-ends", reason, { exitCode: code });
    }
    this.#finish(code);
  }
}

/** What evidence is of, in words, with the work that was at hand. */
function happened({ loop, kind, error, isLivelock, breadcrumb }: StallEvidence): string {
  const stalled = isLivelock === true ? "turned without getting anywhere" : "stalled";
  const ended = kind === "crash" ? `crashed (${error})` : "fell silent";
  const what = kind === "stall" ? stalled : ended;
  const work = workText(breadcrumb);
  return `loop ${loop} ${what}${work === null ? "" : ` at ${work}`}`;
}

function topFrame(frames: StallEvidenceFrames): string {
  const [frame] = frames;
  return frame === undefined ? "no frames" : `${frame.function} (${frame.url}:${frame.line})`;
}

type StallEvidenceFrames = Extract<StallEvidence["stack"], { kind: "javascript" }>["frames"];

function silenceEvidence(pid: number, stall: StallFacts): StallEvidence {
  const time = new Date();
  const reason = "the watchdog thread itself fell silent; the kernel's view of its process follows";
  return {
    format: 1,
    id: newStallId(time, pid, "edge"),
    kind: "silence",
    time: time.toISOString(),
    pid,
    loop: "edge",
    phase: stall.phase,
    action: "bounce",
    budgetMs: stall.budgetMs,
    silentMs: Math.round(stall.silentMs),
    misses: stall.misses,
    stack: { kind: "native", reason, thread: null },
    error: null,
    breadcrumb: null,
    lastBreadcrumbs: [],
    loops: [],
    resources: resourcesOf(pid),
    threads: threadsOf(pid),
    configHash: "",
  };
}

function silenceBudgets(bootMs: number, steadyMs: number) {
  return { boot: bootMs, load: bootMs, apply: steadyMs, steady: steadyMs, drain: steadyMs };
}

/** How long the last alert may hold up the end of the supervisor. */
const ALERT_LIMIT_MS = 2000;
/** As the edge's own default. */
const STALL_FILES_MAX = 20;
