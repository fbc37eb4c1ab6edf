/** Questions of the replica thread to the edge's main thread, each with a limit to its patience. */
import { PatinaError } from "#base/errors.ts";
import type { EdgeQuestion } from "../../replica/replica.ts";
import type { ReplicaThreadEvent } from "./messages.ts";

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly timer: NodeJS.Timeout;
}

/** Numbers questions and matches answers; a main thread that is stuck costs an error, not a wait. */
export class EdgeQuestions {
  readonly #tell: (event: ReplicaThreadEvent) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #answerMs: number;
  #nextId = 1;

  /** `answerMs` is the limit of each question. */
  constructor(tell: (event: ReplicaThreadEvent) => void, answerMs = ANSWER_MS) {
    this.#tell = tell;
    this.#answerMs = answerMs;
  }

  /** The answer. Rejects with `EDGE_SILENT` when none comes in time. */
  ask(question: EdgeQuestion): Promise<unknown> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        const text = `the edge's main thread gave no answer within ${this.#answerMs} ms`;
        reject(new PatinaError("EDGE_SILENT", text));
      }, this.#answerMs);
      this.#waiting.set(id, { resolve, timer });
      this.#tell({ kind: "ask", id, question });
    });
  }

  /** Takes the answer to question `id`; one that comes too late is dropped. */
  answered(id: number, value: unknown): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    waiting.resolve(value);
  }
}

/** Longer than the stall budgets' defaults: a loop that takes longer is bounced. */
const ANSWER_MS = 2_000;
