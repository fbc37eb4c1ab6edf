/**
 * The writing side of one loop's shared memory: beats, phase, progress and breadcrumbs.
 *
 * Exactly one thread writes a region. A beat costs about 10 ns and a breadcrumb of forty
 * characters about 100 ns, so a breadcrumb per change or per request is affordable. Nothing here
 * allocates or can block.
 */
import type { LoopBeatPlan, LoopPhase } from "../types.ts";
import { BREADCRUMBS_KEPT, BREADCRUMB_BYTES_MAX, CELL, VITAL } from "./shared-layout.ts";
import { type LoopRegion, PHASES, loopRegion } from "./shared-layout.ts";

/** What a loop says about its memory and time; written about once a second. */
export interface LoopVitals {
  readonly heapUsedBytes: number;
  readonly heapTotalBytes: number;
  readonly externalBytes: number;
  /** Busy share of the time since the last report, 0 to 1. */
  readonly utilisation: number;
}

/** Identity of the thread that runs the loop; 0 where it is not known. */
export interface LoopThread {
  /** Node's thread number; 0 is the main thread. */
  readonly threadId: number;
  /** The kernel's thread number. */
  readonly nativeThreadId: number;
}

/** One loop's signs of life. */
export class LoopBeat {
  readonly #region: LoopRegion;
  /** Continues where a replaced thread stopped, so that a reader never sees an old number again. */
  #beats: number;
  #progress: number;
  #cursor: number;

  private constructor(region: LoopRegion) {
    this.#region = region;
    this.#beats = Atomics.load(region.cells, CELL.beats);
    this.#progress = Atomics.load(region.cells, CELL.progress);
    this.#cursor = Atomics.load(region.cells, CELL.cursor);
  }

  /** Starts to be watched, in phase `boot`. Called in the thread that runs the loop. */
  static attach(plan: LoopBeatPlan, thread: LoopThread): LoopBeat {
    const region = loopRegion(plan.buffer, plan.loop);
    const beat = new LoopBeat(region);
    Atomics.store(region.cells, CELL.threadId, thread.threadId);
    Atomics.store(region.cells, CELL.nativeThreadId, thread.nativeThreadId);
    Atomics.store(region.cells, CELL.inProgress, 0);
    beat.enter("boot");
    Atomics.store(region.cells, CELL.watched, 1);
    return beat;
  }

  /** Says that the loop turns, and for how long it has waited for events since it began. */
  turn(idleMs: number): void {
    this.#region.vitals[VITAL.idleMs] = idleMs;
    this.beat();
  }

  /** Says that the loop turns. */
  beat(): void {
    this.#beats = (this.#beats + 1) | 0;
    Atomics.store(this.#region.cells, CELL.beats, this.#beats);
  }

  /** Changes phase; counts as a beat and as progress: the new phase starts with its whole budget. */
  enter(phase: LoopPhase): void {
    Atomics.store(this.#region.cells, CELL.phase, PHASES.indexOf(phase));
    this.progress();
    this.beat();
  }

  /** The phase last entered. */
  get phase(): LoopPhase {
    return PHASES[Atomics.load(this.#region.cells, CELL.phase)] ?? "steady";
  }

  /** Counts work that got somewhere: bytes moved, a connection taken, a request ended. */
  progress(): void {
    this.#progress = (this.#progress + 1) | 0;
    Atomics.store(this.#region.cells, CELL.progress, this.#progress);
  }

  /**
   * Notes the work that begins: `kind` 1 to 255, a number, and text or bytes (cut at 512). It is
   * the work in progress until `done` or the next breadcrumb.
   */
  breadcrumb(kind: number, value: number, note: string | Uint8Array): void {
    const { cells, ring } = this.#region;
    const entry = ring[this.#cursor & (BREADCRUMBS_KEPT - 1)];
    if (entry === undefined) return;
    // An exchange, not a store: it keeps the writes below from moving above it.
    const sequence = Atomics.add(entry.cells, 0, 1);
    entry.cells[1] = kind;
    entry.value[0] = value;
    if (typeof note === "string") {
      const { read, written } = ENCODER.encodeInto(note, entry.bytes);
      entry.cells[2] = written;
      entry.cells[3] = read < note.length ? 1 : 0;
    } else {
      const length = Math.min(note.length, BREADCRUMB_BYTES_MAX);
      entry.bytes.set(length === note.length ? note : note.subarray(0, length));
      entry.cells[2] = length;
      entry.cells[3] = length < note.length ? 1 : 0;
    }
    Atomics.store(entry.cells, 0, (sequence + 2) | 0);
    this.#cursor = (this.#cursor + 1) | 0;
    Atomics.store(cells, CELL.cursor, this.#cursor);
    Atomics.store(cells, CELL.inProgress, 1);
  }

  /** The work of the last breadcrumb is over. */
  done(): void {
    Atomics.store(this.#region.cells, CELL.inProgress, 0);
  }

  /** Reports memory and busy share. */
  vitals(vitals: LoopVitals): void {
    const cells = this.#region.vitals;
    cells[VITAL.heapUsed] = vitals.heapUsedBytes;
    cells[VITAL.heapTotal] = vitals.heapTotalBytes;
    cells[VITAL.external] = vitals.externalBytes;
    cells[VITAL.utilisation] = vitals.utilisation;
  }

  /** Ends being watched: the loop is about to end on purpose. */
  leave(): void {
    Atomics.store(this.#region.cells, CELL.watched, 2);
  }
}

const ENCODER = new TextEncoder();
