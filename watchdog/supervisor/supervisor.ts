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
import type { PipeLine } from "../core/pipe-lines.ts";
import { type RestartInput, type RestartOutput, RestartPolicy } from "../core/restart-policy.ts";
import { assignSockets, passedSockets } from "../core/systemd.ts";
import { type StallFacts, StallDetector } from "../core/stall-detector.ts";
import { readStall, writeStall } from "../driver/stall-files.ts";
import { writeLogLine } from "../driver/write-line.ts";
import type { StallEvidence } from "../types.ts";
import { Alerts } from "./driver/alerts.ts";
import {
  abortEvidence,
  evidenceFields,
  happened,
  silenceEvidence,
} from "./driver/edge-evidence.ts";
import { type EdgeExit, type EdgeProcess, type EdgeRun, startEdge } from "./driver/edge-process.ts";
import { type HeldSocket, holdSockets } from "./driver/held-sockets.ts";
import { MachineLoop } from "./driver/machine-loop.ts";
import { ServiceNotices, takeServiceEnvironment } from "./driver/service-notices.ts";
import type { EdgeConfig } from "./driver/upgrade-files.ts";
import { EXIT, LASTING_EXIT_CODES } from "./exit-codes.ts";
import { ALERT_RULES, type SupervisorConfig } from "./supervisor-config.ts";
import { Upgrades } from "./upgrades.ts";

/** Runs until the edge is stopped for good; the answer is the exit code. */
export async function runSupervisor(config: SupervisorConfig, configPath: string): Promise<number> {
  const log = createLog();
  const service = takeServiceEnvironment(process.env);
  const names = config.listen.map(({ name }) => name);
  const passed = assignSockets(passedSockets(service, process.pid), names);
  if (!passed.ok) {
    log.error("listen-failed", passed.error);
    return EXIT.config;
  }
  const held = await holdSockets(config.listen, passed.value);
  if (!held.ok) {
    log.error("listen-failed", held.error.message);
    return held.error.exitCode;
  }
  for (const { name, host, port } of held.value) {
    const isPassed = passed.value.has(name);
    const msg = `${isPassed ? "taking the service manager's" : "holding"} ${name}`;
    log.info?.("listening", msg, isPassed ? { name } : { name, host, port });
  }
  const notices = new ServiceNotices(service, log);
  return await new Supervisor({ config, configPath, sockets: held.value, log, notices }).run();
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
  readonly notices: ServiceNotices;
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
  readonly #upgrades: Upgrades;
  readonly #policyLoop: MachineLoop<RestartInput, RestartOutput>;
  #finish: (code: number) => void = () => undefined;

  constructor(parts: SupervisorParts) {
    const { config, configPath, log } = parts;
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
    this.#policyLoop = new MachineLoop(this.#policy, (output) => this.#perform(output));
    this.#upgrades = new Upgrades({
      inForce: { config, path: configPath },
      log,
      alerts: this.#alerts,
      edge: () => this.#run,
      setEdge: (run) => (this.#run = run),
      start: (from) => this.#start(from, { isStandby: true }),
      begun: () => parts.notices.tellReloading(),
      over: () => parts.notices.tell("READY=1"),
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
      process.on(signal, () => {
        this.#parts.notices.tell("STOPPING=1");
        this.#upgrades.stop();
        this.#policyLoop.run({ kind: "stop", signal });
      });
    }
    process.on("SIGHUP", () => this.#reload());
    process.on("SIGUSR2", () => this.#upgrades.ask(this.#policy.isReady));
    this.#upgrades.open();
    this.#parts.notices.start();
    const poll = setInterval(() => this.#pollSilence(), this.#pollPeriodMs);
    this.#policyLoop.run({ kind: "start" });
    const code = await finished;
    clearInterval(poll);
    this.#policyLoop.stop();
    await this.#upgrades.close();
    await this.#alerts.settle(ALERT_LIMIT_MS);
    await this.#parts.notices.settle(NOTICE_LIMIT_MS);
    return code;
  }

  /** Whether the edge took over what it read is in its log: the service goes on either way. */
  #reload(): void {
    if (this.#policy.isReady) this.#parts.notices.tellReloading();
    this.#policyLoop.run({ kind: "reload" });
    if (this.#policy.isReady) this.#parts.notices.tell("READY=1");
  }

  #perform(output: RestartOutput): void {
    switch (output.kind) {
      case "spawn":
        this.#run = this.#start(this.#upgrades.inForce, { isStandby: false });
        return;
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

  #start(from: EdgeConfig, { isStandby }: { readonly isStandby: boolean }): EdgeRun {
    const { sockets } = this.#parts;
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const edge: EdgeProcess = startEdge(
      { from, sockets, isStandby },
      {
        line: (line) => this.#onLine(run, line),
        exited: (code, signal) => {
          this.#onExited(run, { code, signal });
          resolve();
        },
        closed: () => this.#alertBounce(run),
      },
    );
    const run: EdgeRun = {
      process: edge,
      startedMs: performance.now(),
      from,
      ended,
      beats: 0,
      stallId: null,
      isReady: false,
      work: null,
      peersBounced: 0,
      bounce: null,
    };
    return run;
  }

  #onExited(run: EdgeRun, exit: EdgeExit): void {
    this.#keepWork(run, exit.signal ?? "");
    if (run !== this.#run) return this.#upgrades.otherExited(run, exit);
    this.#ended = run;
    this.#run = null;
    const isReplaced = this.#upgrades.edgeExited();
    this.#policyLoop.run({ kind: "exited", ...exit, isReplaced });
  }

  #onLine(run: EdgeRun, line: PipeLine): void {
    run.beats += 1;
    switch (line.kind) {
      case "ready":
        return this.#onReady(run);
      case "stall":
        return this.#onEvidence(run, line.id);
      case "alert": {
        const { alert } = line;
        const fields = { ...alert.fields, pid: run.process.pid };
        return this.#alerts.raise({ ...alert, fields });
      }
      case "work":
        run.work = line.work.breadcrumb === null ? null : line.work;
        return;
      case "fleet":
        run.peersBounced = line.peers;
        return;
      case "loaded":
      case "handedOver":
        return this.#upgrades.told(run, line.kind);
      case "beat":
      case "notReady":
      case "unknown":
        return;
    }
  }

  /** An edge that is ready again, because its disk has room again, is none that was started. */
  #onReady(run: EdgeRun): void {
    if (run.isReady) return;
    run.isReady = true;
    const bootMs = Math.round(performance.now() - run.startedMs);
    this.#log.info?.("edge-ready", "the edge answers", { pid: run.process.pid, bootMs });
    this.#alerts.resolve("crash-loop", "");
    this.#parts.notices.tell("READY=1", `STATUS=edge process ${run.process.pid} answers`);
    if (run === this.#run) this.#policyLoop.run({ kind: "ready" });
    else this.#upgrades.told(run, "ready");
  }

  /**
   * An edge that aborted (its memory is used up, native code failed) could not write evidence. Done
   * before the next one starts, because that judges it.
   */
  #keepWork(run: EdgeRun, signal: string): void {
    if (run.work === null || run.stallId !== null || !ABORTS.includes(signal)) return;
    run.stallId = this.#keepEvidence(run, abortEvidence(run.process.pid, run.work, signal));
  }

  /** Evidence of a loop that is only reported has its alert at once: no bounce will follow. */
  #onEvidence(run: EdgeRun, id: string): void {
    const evidence = readStall(this.#parts.config.stateFolder, id);
    if (evidence.ok && evidence.value.action === "report") {
      const kind = evidence.value.kind === "crash" ? "loop-crashed" : "loop-stalled";
      const fields = evidenceFields(this.#parts.config.stateFolder, id);
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
    run.stallId = this.#keepEvidence(run, silenceEvidence(run.process.pid, stall));
    run.process.signal("SIGKILL");
  }

  /** Returns its id; null where the disk refuses. */
  #keepEvidence({ peersBounced: peers }: EdgeRun, known: StallEvidence): string | null {
    const evidence = peers === 0 ? known : { ...known, fleet: { peers, isSpent: true } };
    try {
      writeStall(this.#parts.config.stateFolder, evidence, STALL_FILES_MAX);
      return evidence.id;
    } catch (error) {
      const fields = { error: errorText(error) };
      this.#log.error("evidence-lost", "evidence of an edge could not be written", fields);
      return null;
    }
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
      ...(stallId === null ? {} : evidenceFields(this.#parts.config.stateFolder, stallId)),
    };
    if (delayMs === 0) {
      const subject = stallId ?? `pid ${run.process.pid}`;
      return this.#alerts.raise({ kind: "edge-bounced", subject, msg, fields });
    }
    this.#log.warn?.("edge-bounced", msg, fields);
    const loop = `the edge ends again and again before it is ready${what}`;
    this.#alerts.raise({ kind: "crash-loop", subject: "", msg: loop, fields });
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

function silenceBudgets(bootMs: number, steadyMs: number) {
  return { boot: bootMs, load: bootMs, apply: steadyMs, steady: steadyMs, drain: steadyMs };
}

/** How long the last alert may hold up the end of the supervisor. */
const ALERT_LIMIT_MS = 2000;
/** Signals by which a process ends itself: nobody else sends them. */
const ABORTS: readonly string[] = ["SIGABRT", "SIGTRAP", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"];
/** The same of the last notice. */
const NOTICE_LIMIT_MS = 1000;
/** As the edge's own default. */
const STALL_FILES_MAX = 20;
