/**
 * Decides how one edge process hands over to another without a moment in which nobody serves.
 *
 * Two processes cannot share the database, the gossip port, the API and the metrics port. They can
 * share the listening sockets, which the supervisor holds. So the new process, the *candidate*, loads
 * the routing table and waits; the old one gives up what cannot be shared and goes on serving from
 * its table; the candidate takes it all, then accepts; only then does the old one, by now *retired*,
 * drain. Until the last step the old process has never stopped serving, and taking back what it gave
 * up is all that an undoing needs.
 *
 *            begin           loaded              handedOver            ready
 *   idle ──────────► starting ──────► handingOver ──────────► takingOver ──────► draining
 *    ▲ ▲                │                 │                       │                 │
 *    │ │ the candidate  │ exited          │ exited: resume        │ exited: resume  │ retired
 *    │ └────────────────┴─────────────────┴───────────────────────┘                 │ exited
 *    │          too late: kill it, and go on when it is gone (undoing)              │
 *    └──────────────────────────────────────────────────────────────────────────────┘
 *
 * An edge that ends by itself meanwhile has freed everything: the candidate takes over at once. After
 * `stop` nothing begins any more. It knows nothing of processes and pipes.
 */
import type { Machine } from "#base/machine.ts";

/** Inputs. `edge` is the process in force at `begin`, `candidate` the one that is to follow it. */
export type UpgradeInput =
  | { readonly kind: "begin"; readonly isEdgeReady: boolean }
  /** The candidate has its table and waits. */
  | { readonly kind: "loaded" }
  /** The edge has given up what two processes cannot share. */
  | { readonly kind: "handedOver" }
  /** The candidate has opened everything and accepts. */
  | { readonly kind: "ready" }
  | {
      readonly kind: "candidateExited";
      readonly code: number | null;
      readonly signal: string | null;
    }
  /** The edge ended unasked. */
  | { readonly kind: "edgeExited" }
  /** The process that was replaced has ended. */
  | { readonly kind: "retiredExited" }
  /** The supervisor is to end; the edge itself is told by others. The second time, at once. */
  | { readonly kind: "stop" }
  | { readonly kind: "tick" };

/** Effects. */
export type UpgradeOutput =
  /** Start the candidate; `loaded` or `candidateExited` is to follow. */
  | { readonly kind: "spawn" }
  | { readonly kind: "tellEdge"; readonly command: "handOver" | "resume" }
  | { readonly kind: "tellCandidate"; readonly command: "takeOver" }
  | { readonly kind: "signal"; readonly to: "candidate" | "retired"; readonly signal: EndSignal }
  /**
   * The candidate is the edge from here on. With `isReady`, the process before it is the retired one
   * and has to drain; otherwise that one has ended.
   */
  | { readonly kind: "promote"; readonly isReady: boolean }
  /** The edge serves as before, or is started anew where it was lost as well. */
  | { readonly kind: "rolledBack"; readonly failure: UpgradeFailure }
  | { readonly kind: "refused"; readonly reason: UpgradeRefusal };

/** Drain, or end at once. */
export type EndSignal = "SIGTERM" | "SIGKILL";

/** How far an upgrade got, and what ended it. */
export interface UpgradeFailure {
  readonly step: UpgradeStep;
  readonly cause: "exited" | "tooLate" | "edgeLost";
  /** Of the candidate, where that is known. */
  readonly code: number | null;
  readonly signal: string | null;
}

/** What is being waited for: the candidate's table, the edge's giving up, the candidate's taking. */
export type UpgradeStep = "starting" | "handingOver" | "takingOver";

/** Why an upgrade does not even begin. */
export type UpgradeRefusal = "underWay" | "edgeNotReady" | "stopping";

/** Limits, in milliseconds. */
export interface UpgradeConfig {
  /** For each step; then it is undone. */
  readonly stepLimitMs: number;
  /** From the retired edge's SIGTERM to its SIGKILL. */
  readonly drainLimitMs: number;
}

/** One supervisor's upgrades, one at a time. */
export class Upgrade implements Machine<UpgradeInput, UpgradeOutput> {
  readonly #config: UpgradeConfig;
  readonly #outbox: UpgradeOutput[] = [];
  #state: "idle" | UpgradeStep | "undoing" | "draining" = "idle";
  /** The edge was asked to hand over: it has to be told when nothing comes of it. */
  #isEdgeAsked = false;
  /** What led to `undoing`. */
  #failed: Pick<UpgradeFailure, "step" | "cause"> = { step: "starting", cause: "tooLate" };
  #isStopping = false;
  #dueMs = Infinity;

  constructor(config: UpgradeConfig) {
    this.#config = config;
  }

  handle(input: UpgradeInput, nowMs: number): void {
    switch (input.kind) {
      case "begin":
        return this.#begin(input.isEdgeReady, nowMs);
      case "loaded":
        if (this.#state !== "starting" || this.#isStopping) return;
        this.#isEdgeAsked = true;
        this.#outbox.push({ kind: "tellEdge", command: "handOver" });
        return this.#enter("handingOver", nowMs);
      case "handedOver":
        if (this.#state !== "handingOver" || this.#isStopping) return;
        this.#outbox.push({ kind: "tellCandidate", command: "takeOver" });
        return this.#enter("takingOver", nowMs);
      case "ready":
        return this.#onReady(nowMs);
      case "candidateExited":
        return this.#onCandidateExited(input);
      case "edgeExited":
        return this.#onEdgeExited();
      case "retiredExited":
        if (this.#state === "draining") this.#rest();
        return;
      case "stop":
        return this.#onStop(nowMs);
      case "tick":
        return this.#onTick(nowMs);
    }
  }

  drain(): UpgradeOutput[] {
    return this.#outbox.splice(0);
  }

  deadlineMs(): number {
    return this.#dueMs;
  }

  #begin(isEdgeReady: boolean, nowMs: number): void {
    const reason = this.#refusal(isEdgeReady);
    if (reason !== null) return void this.#outbox.push({ kind: "refused", reason });
    this.#isEdgeAsked = false;
    this.#outbox.push({ kind: "spawn" });
    this.#enter("starting", nowMs);
  }

  #refusal(isEdgeReady: boolean): UpgradeRefusal | null {
    if (this.#isStopping) return "stopping";
    if (this.#state !== "idle") return "underWay";
    return isEdgeReady ? null : "edgeNotReady";
  }

  #onReady(nowMs: number): void {
    if (this.#state !== "takingOver" || this.#isStopping) return;
    this.#outbox.push({ kind: "promote", isReady: true });
    this.#outbox.push({ kind: "signal", to: "retired", signal: "SIGTERM" });
    this.#state = "draining";
    this.#dueMs = nowMs + this.#config.drainLimitMs;
  }

  #onCandidateExited(exit: { readonly code: number | null; readonly signal: string | null }): void {
    const { code, signal } = exit;
    switch (this.#state) {
      case "starting":
      case "handingOver":
      case "takingOver":
        return this.#rollBack({ step: this.#state, cause: "exited", code, signal });
      case "undoing":
        return this.#rollBack({ ...this.#failed, code, signal });
      case "idle":
      case "draining":
        return;
    }
  }

  #rollBack(failure: UpgradeFailure): void {
    if (!this.#isStopping) {
      if (this.#isEdgeAsked) this.#outbox.push({ kind: "tellEdge", command: "resume" });
      this.#outbox.push({ kind: "rolledBack", failure });
    }
    this.#rest();
  }

  #onEdgeExited(): void {
    switch (this.#state) {
      case "starting":
      case "handingOver":
      case "takingOver":
        // Asked to end, it has ended; the candidate has its signal.
        if (this.#isStopping) return;
        this.#outbox.push({ kind: "promote", isReady: false });
        if (this.#state !== "takingOver") {
          this.#outbox.push({ kind: "tellCandidate", command: "takeOver" });
        }
        return this.#rest();
      case "undoing":
        // Another one is started as after any crash, and has everything.
        this.#isEdgeAsked = false;
        this.#failed = { ...this.#failed, cause: "edgeLost" };
        return;
      case "idle":
      case "draining":
        return;
    }
  }

  #onStop(nowMs: number): void {
    const isSecond = this.#isStopping;
    this.#isStopping = true;
    switch (this.#state) {
      case "starting":
      case "handingOver":
      case "takingOver": {
        // One that takes over may have a database open, which is to be closed.
        const isOpen = this.#state === "takingOver" && !isSecond;
        const signal = isOpen ? "SIGTERM" : "SIGKILL";
        this.#outbox.push({ kind: "signal", to: "candidate", signal });
        this.#dueMs = isOpen ? nowMs + this.#config.drainLimitMs : Infinity;
        return;
      }
      case "draining":
        if (!isSecond) return;
        this.#dueMs = Infinity;
        this.#outbox.push({ kind: "signal", to: "retired", signal: "SIGKILL" });
        return;
      case "idle":
      case "undoing":
        return;
    }
  }

  #onTick(nowMs: number): void {
    if (nowMs < this.#dueMs) return;
    this.#dueMs = Infinity;
    switch (this.#state) {
      case "starting":
      case "handingOver":
      case "takingOver":
        this.#failed = { step: this.#state, cause: "tooLate" };
        this.#state = "undoing";
        this.#outbox.push({ kind: "signal", to: "candidate", signal: "SIGKILL" });
        return;
      case "draining":
        this.#outbox.push({ kind: "signal", to: "retired", signal: "SIGKILL" });
        return;
      case "idle":
      case "undoing":
        return;
    }
  }

  #enter(state: UpgradeStep, nowMs: number): void {
    this.#state = state;
    this.#dueMs = nowMs + this.#config.stepLimitMs;
  }

  #rest(): void {
    this.#state = "idle";
    this.#isEdgeAsked = false;
    this.#dueMs = Infinity;
  }
}
