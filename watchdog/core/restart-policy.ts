/**
 * Decides what the supervisor does when its edge process ends, falls silent, or is to stop.
 *
 * An edge that had been ready is started again at once: clients wait in the accept queue of the
 * sockets that the supervisor holds. Only exits *before* ready count as a crash loop: after five
 * within 60 s each further start is delayed, longer each time, until an edge is ready again.
 * Some exit codes say that no restart can help; they end the supervisor, unless an edge has been
 * ready before, because then the condition may pass and serving again matters more.
 *
 *            start                    exited                      delay over
 *   idle ──────────► running(booting) ──────► waiting ──────────────────────► running(booting)
 *                      │ ready  ▲               │ stop, give up, lasting code
 *                      ▼        │ exited        ▼
 *                    running(ready)           finished
 *                      │ stop                   ▲
 *                      └──────► stopping ───────┘ exited
 *
 * It knows nothing of processes and sockets.
 */
import type { Machine } from "#base/machine.ts";

/** Signals that ask the supervisor to end. */
export type StopSignal = "SIGTERM" | "SIGINT";

/** Inputs. */
export type RestartInput =
  | { readonly kind: "start" }
  | { readonly kind: "ready" }
  | {
      readonly kind: "exited";
      readonly code: number | null;
      readonly signal: string | null;
      /** Another edge has been started for an upgrade and takes its place: none is to be spawned. */
      readonly isReplaced?: boolean;
    }
  | { readonly kind: "stop"; readonly signal: StopSignal }
  /** Ask the edge to read its config again. */
  | { readonly kind: "reload" }
  | { readonly kind: "tick" };

/** Effects. */
export type RestartOutput =
  /** Start an edge; `exited` or `ready` is to follow. */
  | { readonly kind: "spawn" }
  | { readonly kind: "signal"; readonly signal: StopSignal | "SIGHUP" | "SIGKILL" }
  /** The edge ended unasked and is started again after `delayMs`: alert. */
  | {
      readonly kind: "bounced";
      readonly code: number | null;
      readonly signal: string | null;
      readonly wasReady: boolean;
      readonly delayMs: number;
    }
  /** End the supervisor with this exit code; always last. */
  | { readonly kind: "finish"; readonly code: number; readonly reason: FinishReason };

/** Why the supervisor ends. */
export type FinishReason = "stopped" | "lasting exit code" | "crash loop";

/** Rules; all times in milliseconds. */
export interface RestartPolicyConfig {
  /** Exit codes that no restart can mend. */
  readonly lastingCodes: readonly number[];
  /** Exit code of a supervisor that gives up. */
  readonly crashLoopCode: number;
  /** Signal name to number, for exit codes of an edge that a signal ended. */
  readonly signalNumbers: Readonly<Record<string, number>>;
  readonly drainLimitMs: number;
  readonly crashLoopExits: number;
  readonly crashLoopWindowMs: number;
  readonly backOffFirstMs: number;
  readonly backOffMaxMs: number;
  /** Exits before ready after which to give up when no edge was ever ready. */
  readonly giveUpExits: number;
}

type State = "idle" | "booting" | "ready" | "waiting" | "stopping" | "finished";

/** The supervisor's decisions; see the header. */
export class RestartPolicy implements Machine<RestartInput, RestartOutput> {
  readonly #config: RestartPolicyConfig;
  readonly #outbox: RestartOutput[] = [];
  #state: State = "idle";
  /** Times of exits before ready, within the window. */
  #earlyExitsMs: number[] = [];
  /** Exits before ready since the last ready edge. */
  #earlyExits = 0;
  #backOffMs: number;
  #wasEverReady = false;
  /** When to spawn (waiting) or to kill (stopping); Infinity otherwise. */
  #dueMs = Infinity;

  constructor(config: RestartPolicyConfig) {
    this.#config = config;
    this.#backOffMs = config.backOffFirstMs;
  }

  handle(input: RestartInput, nowMs: number): void {
    switch (input.kind) {
      case "start":
        if (this.#state === "idle") this.#spawn();
        return;
      case "ready":
        return this.#onReady();
      case "exited":
        return input.isReplaced === true && this.#state !== "stopping"
          ? this.#onReplaced(input)
          : this.#onExited(input, nowMs);
      case "stop":
        return this.#onStop(input.signal, nowMs);
      case "reload":
        if (this.#hasEdge()) this.#outbox.push({ kind: "signal", signal: "SIGHUP" });
        return;
      case "tick":
        return this.#onTick(nowMs);
    }
  }

  drain(): RestartOutput[] {
    return this.#outbox.splice(0);
  }

  deadlineMs(): number {
    return this.#dueMs;
  }

  /** Whether there is an edge that answers. */
  get isReady(): boolean {
    return this.#state === "ready";
  }

  #onReady(): void {
    if (this.#state !== "booting") return;
    this.#state = "ready";
    this.#wasEverReady = true;
    this.#earlyExitsMs = [];
    this.#earlyExits = 0;
    this.#backOffMs = this.#config.backOffFirstMs;
  }

  #onReplaced({ code, signal }: { code: number | null; signal: string | null }): void {
    const wasReady = this.#state === "ready";
    this.#state = "booting";
    this.#outbox.push({ kind: "bounced", code, signal, wasReady, delayMs: 0 });
  }

  #onExited(exit: { code: number | null; signal: string | null }, nowMs: number): void {
    const { code, signal } = exit;
    if (this.#state === "stopping") return this.#finish(this.#exitCode(exit), "stopped");
    if (!this.#hasEdge()) return;
    const wasReady = this.#state === "ready";
    if (code !== null && !this.#wasEverReady && this.#config.lastingCodes.includes(code)) {
      return this.#finish(code, "lasting exit code");
    }
    const delayMs = wasReady ? 0 : this.#delayAfterEarlyExit(nowMs);
    if (!this.#wasEverReady && this.#earlyExits >= this.#config.giveUpExits) {
      return this.#finish(this.#config.crashLoopCode, "crash loop");
    }
    this.#state = "waiting";
    this.#dueMs = nowMs + delayMs;
    if (delayMs === 0) this.#spawn();
    // After the spawn: telling takes time that clients would wait for.
    this.#outbox.push({ kind: "bounced", code, signal, wasReady, delayMs });
  }

  #delayAfterEarlyExit(nowMs: number): number {
    const { crashLoopExits, crashLoopWindowMs, backOffMaxMs } = this.#config;
    this.#earlyExits += 1;
    this.#earlyExitsMs.push(nowMs);
    this.#earlyExitsMs = this.#earlyExitsMs.filter((at) => nowMs - at < crashLoopWindowMs);
    // Once delayed, always delayed until ready: long delays would empty the window again.
    const isLooping = this.#earlyExitsMs.length >= crashLoopExits;
    if (!isLooping && this.#backOffMs === this.#config.backOffFirstMs) return 0;
    const delayMs = this.#backOffMs;
    this.#backOffMs = Math.min(delayMs * 2, backOffMaxMs);
    return delayMs;
  }

  #onStop(signal: StopSignal, nowMs: number): void {
    switch (this.#state) {
      case "booting":
      case "ready":
        this.#state = "stopping";
        this.#dueMs = nowMs + this.#config.drainLimitMs;
        this.#outbox.push({ kind: "signal", signal });
        return;
      case "stopping":
        this.#dueMs = Infinity;
        this.#outbox.push({ kind: "signal", signal: "SIGKILL" });
        return;
      case "idle":
      case "waiting":
        return this.#finish(0, "stopped");
      case "finished":
        return;
    }
  }

  #onTick(nowMs: number): void {
    if (nowMs < this.#dueMs) return;
    if (this.#state === "waiting") this.#spawn();
    else if (this.#state === "stopping") {
      this.#dueMs = Infinity;
      this.#outbox.push({ kind: "signal", signal: "SIGKILL" });
    }
  }

  #spawn(): void {
    this.#state = "booting";
    this.#dueMs = Infinity;
    this.#outbox.push({ kind: "spawn" });
  }

  #finish(code: number, reason: FinishReason): void {
    this.#state = "finished";
    this.#dueMs = Infinity;
    this.#outbox.push({ kind: "finish", code, reason });
  }

  #hasEdge(): boolean {
    return this.#state === "booting" || this.#state === "ready" || this.#state === "stopping";
  }

  #exitCode({ code, signal }: { code: number | null; signal: string | null }): number {
    return code ?? 128 + (this.#config.signalNumbers[signal ?? ""] ?? 0);
  }
}
