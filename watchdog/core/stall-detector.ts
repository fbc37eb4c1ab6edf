/**
 * Decides when a loop has stalled, from beats that were polled by a thread with its own clock.
 *
 * A poll that sees no beat is a miss, and the time since the poll before is silence. Silence beyond
 * the budget of the loop's phase makes it suspected; after a random delay, so that a fleet does not
 * bounce in step, it is accused: the driver writes evidence and answers `captured`, and only then
 * the action is taken. A beat at any time before that cancels everything.
 *
 *            budget over            jitter over             captured, or capture limit
 *   calm ──────────────► suspected ─────────────► accused ──────────────────────────► acted
 *    ▲                       │                       │                                  │
 *    └───────────────────────┴──── a beat ───────────┴──────────────────────────────────┘
 *
 * The watcher must not accuse when it was itself away (suspended machine, stopped process, starved
 * CPU, debugger): a poll counts as a miss only when it came in time by the monotonic *and* the wall
 * clock (the monotonic clock of Linux stands still during suspend). An interval that was overslept
 * counts for nothing and silence starts again at zero. So that a box on which the watcher
 * oversleeps again and again still gets its stall found, silence in good intervals is also added up
 * across them, and three budgets of it suffice.
 *
 * A livelock is judged by the same rules, from signs of life (`life-signs.ts`) in place of beats: a
 * loop that turns and gets nowhere. It is judged only while the loop beats, because what is silent
 * stands still and is judged for that; and one case against a loop is enough.
 *
 * Time in which the loop's thread was runnable but got no CPU (`starvedMs`, where the kernel tells)
 * is not held against it, up to two budgets per silence.
 *
 * It knows nothing of threads, stacks or processes.
 */
import type { Machine } from "#base/machine.ts";
import type { LoopPhase, StallAction, StallBudgets } from "../types.ts";

/** What one poll saw of one loop. */
export interface LoopReading {
  readonly isWatched: boolean;
  /** Wraps; only compared for equality. */
  readonly beats: number;
  readonly phase: LoopPhase;
  /** Signs of life so far; `null` = the loop does not count what it gets done. */
  readonly signs: number | null;
  /** Milliseconds the thread has waited for a CPU since it began; `null` = not asked. */
  readonly starvedMs: number | null;
}

/** Inputs. `poll` is this machine's tick, due every `pollPeriodMs`. */
export type StallInput =
  | { readonly kind: "poll"; readonly wallMs: number; readonly loops: readonly LoopReading[] }
  /** Evidence against the loop is on disk (or cannot be had); its signs as read after that. */
  | {
      readonly kind: "captured";
      readonly loop: number;
      readonly isLivelock: boolean;
      /** Beats, or signs of life in a livelock. */
      readonly beats: number;
    }
  /** What a proven stall of the loop leads to from here on. */
  | { readonly kind: "action"; readonly loop: number; readonly action: StallAction };

/** Facts of an accusation. */
export interface StallFacts {
  /** Position of the loop. */
  readonly loop: number;
  /** It turned; `silentMs` is without progress then. */
  readonly isLivelock: boolean;
  readonly phase: LoopPhase;
  readonly budgetMs: number;
  readonly silentMs: number;
  readonly misses: number;
}

/** Effects. */
export type StallOutput =
  /** The watcher was away, or the wall clock was set: every silence starts again. */
  | { readonly kind: "overslept"; readonly monotonicMs: number; readonly wallMs: number }
  | { readonly kind: "suspect"; readonly stall: StallFacts; readonly jitterMs: number }
  /** Capture evidence within `captureLimitMs`, then answer `captured`. */
  | { readonly kind: "accuse"; readonly stall: StallFacts }
  | { readonly kind: "bounce" | "report"; readonly stall: StallFacts }
  /** A beat came; `from` is how far the case had got. */
  | {
      readonly kind: "recovered";
      readonly loop: number;
      readonly from: "suspected" | "accused" | "acted";
    }
  /** The loop has ended or was taken from its thread: the case is over without a verdict. */
  | { readonly kind: "left"; readonly loop: number };

/** One loop's rules. */
export interface LoopRules {
  readonly action: StallAction;
  readonly budgets: StallBudgets;
}

/** Rules of the detector; all times in milliseconds. */
export interface StallDetectorConfig {
  readonly loops: readonly LoopRules[];
  /** Time between polls; default 50. */
  readonly pollPeriodMs?: number;
  /** How late a poll may be, and how far the clocks may differ in one interval; default 250. */
  readonly lateLimitMs?: number;
  /** Longest wait for evidence; default 400. */
  readonly captureLimitMs?: number;
  /** The next random delay before an accusation. */
  readonly nextJitterMs: () => number;
}

/** Budgets by phase where nothing else is set; the longest honest turn seen, with room. */
export const STALL_BUDGETS: StallBudgets = {
  boot: 15_000,
  load: 15_000,
  apply: 2_000,
  steady: 1_000,
  drain: 5_000,
};

/** One poll to the next. */
interface Interval {
  readonly nowMs: number;
  readonly monotonicMs: number;
  readonly isOverslept: boolean;
}

/** How far the case against a loop has got. */
type Stage = "calm" | "suspected" | "accused" | "acted";

interface LoopCase {
  readonly loop: number;
  readonly isLivelock: boolean;
  rules: LoopRules;
  stage: Stage;
  /** Beats, or signs of life. */
  beats: number;
  phase: LoopPhase;
  isWatched: boolean;
  /** As last read; `null` = not yet in this silence. */
  starvedMs: number | null;
  /** Silence since the last beat or oversleep. */
  silentMs: number;
  /** Silence in good intervals since the last beat, across oversleeps. */
  silentTotalMs: number;
  /** Starvation forgiven since the last beat. */
  forgivenMs: number;
  misses: number;
  jitterMs: number;
  accusedAtMs: number;
}

/** Finds stalls; see the header. */
export class StallDetector implements Machine<StallInput, StallOutput> {
  /** By loop. */
  readonly #silences: readonly LoopCase[];
  readonly #livelocks: readonly LoopCase[];
  readonly #pollPeriodMs: number;
  readonly #lateLimitMs: number;
  readonly #captureLimitMs: number;
  readonly #nextJitterMs: () => number;
  readonly #outbox: StallOutput[] = [];
  /** Time of the last poll by both clocks; null before the first. */
  #last: { readonly nowMs: number; readonly wallMs: number } | null = null;

  constructor(config: StallDetectorConfig) {
    this.#silences = config.loops.map((rules, loop) => newCase(rules, { loop, isLivelock: false }));
    this.#livelocks = config.loops.map((rules, loop) => newCase(rules, { loop, isLivelock: true }));
    this.#pollPeriodMs = config.pollPeriodMs ?? 50;
    this.#lateLimitMs = config.lateLimitMs ?? 250;
    this.#captureLimitMs = config.captureLimitMs ?? 400;
    this.#nextJitterMs = config.nextJitterMs;
  }

  handle(input: StallInput, nowMs: number): void {
    if (input.kind === "captured") return this.#onCaptured(input);
    if (input.kind === "action") return this.#setAction(input.loop, input.action);
    return this.#onPoll(input.loops, { nowMs, wallMs: input.wallMs });
  }

  drain(): StallOutput[] {
    return this.#outbox.splice(0);
  }

  deadlineMs(): number {
    return this.#last === null ? 0 : this.#last.nowMs + this.#pollPeriodMs;
  }

  /** Milliseconds since loop `loop` was last seen to beat, as far as they count against it. */
  silentMs(loop: number): number {
    return this.#silences[loop]?.silentMs ?? 0;
  }

  /** Milliseconds that loop `loop` has turned without a sign of life, likewise. */
  fruitlessMs(loop: number): number {
    return this.#livelocks[loop]?.silentMs ?? 0;
  }

  #onPoll(readings: readonly LoopReading[], time: { nowMs: number; wallMs: number }): void {
    const last = this.#last ?? time;
    this.#last = time;
    const monotonicMs = time.nowMs - last.nowMs;
    const wallMs = time.wallMs - last.wallMs;
    const latest = this.#pollPeriodMs + this.#lateLimitMs;
    const isOverslept = monotonicMs > latest || wallMs > latest || wallMs < -this.#lateLimitMs;
    if (isOverslept) this.#outbox.push({ kind: "overslept", monotonicMs, wallMs });
    for (const [loop, silence] of this.#silences.entries()) {
      const reading = readings[loop];
      const livelock = this.#livelocks[loop];
      if (reading === undefined || livelock === undefined) continue;
      const interval = { nowMs: time.nowMs, monotonicMs, isOverslept };
      const { signs } = reading;
      if (!isProven(livelock)) this.#observe(silence, reading, interval);
      if (isProven(silence) || (silence.silentMs >= TURNING_MS && !isProven(livelock))) {
        if (isOverslept) this.#onOverslept(livelock, reading);
        continue;
      }
      const isWatched = reading.isWatched && signs !== null;
      this.#observe(livelock, { ...reading, isWatched, beats: signs ?? 0 }, interval);
    }
  }

  #observe(one: LoopCase, reading: LoopReading, interval: Interval): void {
    if (isAlive(one, reading)) this.#onAlive(one, reading);
    else if (interval.isOverslept) this.#onOverslept(one, reading);
    else this.#onMiss(one, reading, interval.monotonicMs);
    this.#judge(one, interval.nowMs);
  }

  #onAlive(one: LoopCase, reading: LoopReading): void {
    const { loop } = one;
    if (one.stage !== "calm") {
      const output = reading.isWatched ? ({ kind: "recovered", from: one.stage } as const) : LEFT;
      this.#outbox.push({ ...output, loop });
    }
    Object.assign(one, newCase(one.rules, one), {
      beats: reading.beats,
      phase: reading.phase,
      isWatched: reading.isWatched,
      starvedMs: reading.starvedMs,
    });
  }

  #onOverslept(one: LoopCase, reading: LoopReading): void {
    one.starvedMs = reading.starvedMs ?? one.starvedMs;
    // Evidence is already being taken, or the action was: the case stands.
    if (one.stage === "accused" || one.stage === "acted") return;
    one.stage = "calm";
    one.silentMs = 0;
    one.misses = 0;
  }

  #onMiss(one: LoopCase, reading: LoopReading, intervalMs: number): void {
    const before = one.starvedMs ?? reading.starvedMs ?? 0;
    const starvedMs = Math.max((reading.starvedMs ?? before) - before, 0);
    one.starvedMs = reading.starvedMs ?? one.starvedMs;
    const allowanceMs = this.#budgetMs(one) * STARVED_BUDGETS_MAX - one.forgivenMs;
    const forgivenMs = Math.min(starvedMs, intervalMs, allowanceMs);
    one.forgivenMs += forgivenMs;
    one.misses += 1;
    one.silentMs += intervalMs - forgivenMs;
    one.silentTotalMs += intervalMs - forgivenMs;
  }

  #judge(one: LoopCase, nowMs: number): void {
    if (!one.isWatched) return;
    if (one.stage === "calm" && this.#isOverBudget(one, 0)) {
      one.stage = "suspected";
      one.jitterMs = Math.max(this.#nextJitterMs(), 0);
      const { jitterMs } = one;
      this.#outbox.push({ kind: "suspect", stall: this.#facts(one), jitterMs });
    }
    if (one.stage === "suspected" && this.#isOverBudget(one, one.jitterMs)) {
      one.stage = "accused";
      one.accusedAtMs = nowMs;
      this.#outbox.push({ kind: "accuse", stall: this.#facts(one) });
    } else if (one.stage === "accused" && nowMs - one.accusedAtMs >= this.#captureLimitMs) {
      this.#act(one);
    }
  }

  #onCaptured({ loop, isLivelock, beats }: Extract<StallInput, { kind: "captured" }>): void {
    const one = (isLivelock ? this.#livelocks : this.#silences)[loop];
    // A beat that no poll has seen yet cancels too; the next poll says `recovered`.
    if (one === undefined || one.stage !== "accused" || beats !== one.beats) return;
    this.#act(one);
  }

  #setAction(loop: number, action: StallAction): void {
    for (const one of [this.#silences[loop], this.#livelocks[loop]]) {
      if (one !== undefined) one.rules = { ...one.rules, action };
    }
  }

  #act(one: LoopCase): void {
    one.stage = "acted";
    this.#outbox.push({ kind: one.rules.action, stall: this.#facts(one) });
  }

  #isOverBudget(one: LoopCase, extraMs: number): boolean {
    const budgetMs = this.#budgetMs(one);
    const isSilent =
      one.silentMs >= budgetMs + extraMs ||
      one.silentTotalMs >= budgetMs * OVERSLEPT_BUDGETS + extraMs;
    return one.misses >= MISSES_MIN && isSilent;
  }

  #budgetMs(one: LoopCase): number {
    return one.rules.budgets[one.phase];
  }

  #facts(one: LoopCase): StallFacts {
    const { loop, isLivelock, phase, silentMs, misses } = one;
    return { loop, isLivelock, phase, budgetMs: this.#budgetMs(one), silentMs, misses };
  }
}

function newCase(rules: LoopRules, which: Pick<LoopCase, "loop" | "isLivelock">): LoopCase {
  return {
    loop: which.loop,
    isLivelock: which.isLivelock,
    rules,
    stage: "calm",
    beats: 0,
    phase: "boot",
    isWatched: false,
    starvedMs: null,
    silentMs: 0,
    silentTotalMs: 0,
    forgivenMs: 0,
    misses: 0,
    jitterMs: 0,
    accusedAtMs: 0,
  };
}

/** A loop that is not watched cannot be silent. */
function isAlive(one: LoopCase, reading: LoopReading): boolean {
  if (!reading.isWatched || !one.isWatched) return true;
  return reading.beats !== one.beats || reading.phase !== one.phase;
}

const LEFT = { kind: "left" } as const;

/** Evidence against it is being taken, or was. */
function isProven({ stage }: LoopCase): boolean {
  return stage === "accused" || stage === "acted";
}

/** One unlucky poll proves nothing, however small the budget is. */
const MISSES_MIN = 3;
/** Good silence in budgets that proves a stall although the watcher oversleeps in between. */
const OVERSLEPT_BUDGETS = 3;
/** A loop that beats every 100 ms and is silent for longer than this stands still, for now. */
const TURNING_MS = 250;
/** Starvation forgiven, in budgets: beyond it the loop serves nobody, whoever is to blame. */
const STARVED_BUDGETS_MAX = 2;
