/**
 * The store worker of a simulated replica: one operation at a time, in the production worker's
 * order (urgent changes, then writes, then reads and bulk in turns), bulk cut into slices so that
 * an urgent change waits for one slice at most.
 *
 * Operations take virtual time: each is performed at one moment and answered at a later one, and a
 * crash may fall before, between or after, also between two slices of one batch.
 */
import type { Prng } from "#base/prng.ts";
import type { ApplyOutcome, Changeset } from "../types.ts";
import type { EventQueue } from "./event-queue.ts";
import type { ModelStore } from "./model-store.ts";

/** How a worker works. */
export interface SimStoreWorkerOptions {
  readonly store: ModelStore;
  readonly queue: EventQueue;
  readonly prng: Prng;
  /** Greatest virtual time of one operation, on top of its changesets. */
  readonly storeMs: number;
  /** Virtual time of each changeset applied or read. */
  readonly changesetMs: number;
  /** Says that a situation worth testing has been reached. */
  readonly mark: (mark: string) => void;
  /** Hears of everything applied, when it is on the disk. */
  readonly onApplied: (outcomes: readonly ApplyOutcome[]) => void;
}

/** A worker from the start of its replica to the end. */
export class SimStoreWorker {
  readonly #options: SimStoreWorkerOptions;
  readonly #jobs: Record<Lane, Job[]> = { urgent: [], write: [], read: [], bulk: [] };
  #isBusy = false;
  #isStopped = false;
  #hasRead = false;
  /** Operations performed and not answered yet. */
  #unanswered = 0;
  #lastAnswerMs = 0;

  constructor(options: SimStoreWorkerOptions) {
    this.#options = options;
  }

  /** Whether anything is under way or waits. */
  get isIdle(): boolean {
    return !this.#isBusy && this.#unanswered === 0;
  }

  /** Ends at once: nothing that waits is performed, nothing is answered. */
  stop(): void {
    if (this.#isBusy) this.#options.mark("crashed with store work open");
    if (this.#unanswered > 0) this.#options.mark("crashed between effect and answer");
    this.#isStopped = true;
  }

  /** Applies a batch, slice by slice. */
  apply(
    batch: { readonly changesets: readonly Changeset[]; readonly isUrgent: boolean },
    onDone: (outcomes: readonly ApplyOutcome[]) => void,
  ): void {
    const { store, changesetMs, onApplied } = this.#options;
    const { changesets, isUrgent } = batch;
    const sliceSize = Math.max(1, Math.floor(SLICE_MS / Math.max(changesetMs, 0.001)));
    const outcomes: ApplyOutcome[] = [];
    const nextSlice = (): readonly Changeset[] =>
      changesets.slice(outcomes.length, outcomes.length + sliceSize);
    this.#add(isUrgent ? "urgent" : "bulk", {
      weight: () => nextSlice().length,
      step: () => {
        const slice = store.apply(nextSlice());
        outcomes.push(...slice);
        onApplied(slice);
        return outcomes.length >= changesets.length ? () => onDone(outcomes) : null;
      },
    });
  }

  /** Performs a transaction. */
  write<Answer>(perform: () => Answer, onDone: (answer: Answer) => void): void {
    this.#add("write", once(1, perform, onDone));
  }

  /** Performs a read of about `changesets` changesets. */
  read<Answer>(changesets: number, perform: () => Answer, onDone: (answer: Answer) => void): void {
    this.#add("read", once(changesets, perform, onDone));
  }

  #add(lane: Lane, job: Job): void {
    this.#jobs[lane].push(job);
    if (lane === "urgent" && this.#jobs.bulk.length > 0) this.#options.mark("urgent overtook bulk");
    if (!this.#isBusy) this.#turn();
  }

  #turn(): void {
    const jobs = this.#nextLane();
    const job = jobs?.[0];
    this.#isBusy = job !== undefined;
    if (jobs === null || job === undefined) return;
    const { queue, prng, storeMs, changesetMs } = this.#options;
    const workMs = prng.next() * storeMs + job.weight() * changesetMs;
    queue.after(workMs, () => {
      if (this.#isStopped) return;
      const answer = job.step();
      if (answer !== null) {
        jobs.shift();
        this.#answer(answer);
      }
      this.#turn();
    });
  }

  #nextLane(): Job[] | null {
    const { urgent, write, read, bulk } = this.#jobs;
    if (urgent.length > 0) return urgent;
    if (write.length > 0) return write;
    const isRead = read.length > 0 && (bulk.length === 0 || !this.#hasRead);
    this.#hasRead = isRead;
    if (isRead) return read;
    return bulk.length > 0 ? bulk : null;
  }

  #answer(answer: () => void): void {
    const { queue, prng, storeMs } = this.#options;
    this.#unanswered += 1;
    // Threads tell each other things in order.
    this.#lastAnswerMs = Math.max(this.#lastAnswerMs, queue.nowMs + prng.next() * storeMs);
    queue.at(this.#lastAnswerMs, () => {
      if (this.#isStopped) return;
      this.#unanswered -= 1;
      answer();
    });
  }
}

type Lane = "urgent" | "write" | "read" | "bulk";

interface Job {
  /** Changesets of the next step. */
  weight(): number;
  /** Does a step; returns how to answer when it was the last. */
  step(): (() => void) | null;
}

function once<Answer>(
  weight: number,
  perform: () => Answer,
  onDone: (answer: Answer) => void,
): Job {
  return {
    weight: () => weight,
    step: () => {
      const answer = perform();
      return () => onDone(answer);
    },
  };
}

/** Work of one slice, as in production. */
const SLICE_MS = 8;
