/**
 * What a Plumtree replica remembers of messages: those it has, in the bytes in which they came, to
 * answer Grafts; and those that were announced to it and have not come.
 *
 * Both are bounded, the oldest going first. A message that went is not sent on a Graft, and an
 * announcement that went is not asked about: sync carries either.
 */
import type { ActorId } from "../../types.ts";
import type { ChangeId } from "../wire/types.ts";

/** A message that was received, or is our own. */
export interface TreeMessage {
  readonly key: string;
  readonly id: ChangeId;
  /** As first seen; 0 = our own. */
  readonly round: number;
  /** Its `BroadcastV1`. */
  readonly body: Uint8Array;
  readonly isUrgent: boolean;
  readonly bornMs: number;
  /** Times that it came again. */
  copies: number;
}

/** Messages by key, bounded by number and bytes. */
export class MessageCache {
  readonly #messageByKey = new Map<string, TreeMessage>();
  readonly #entriesMax: number;
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(limits: { readonly entriesMax: number; readonly bytesMax: number }) {
    this.#entriesMax = limits.entriesMax;
    this.#bytesMax = limits.bytesMax;
  }

  /** Messages held. */
  get size(): number {
    return this.#messageByKey.size;
  }

  /** Bytes of their bodies. */
  get bytes(): number {
    return this.#bytes;
  }

  get(key: string): TreeMessage | undefined {
    return this.#messageByKey.get(key);
  }

  /** Takes a message in, and lets the oldest go. */
  add(message: TreeMessage): void {
    this.delete(message.key);
    this.#messageByKey.set(message.key, message);
    this.#bytes += message.body.length;
    for (const oldest of this.#messageByKey.keys()) {
      if (this.size <= this.#entriesMax && this.#bytes <= this.#bytesMax) break;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    const message = this.#messageByKey.get(key);
    if (message === undefined) return;
    this.#messageByKey.delete(key);
    this.#bytes -= message.body.length;
  }

  /** Messages born at `sinceMs` or later, oldest first. O(messages). */
  since(sinceMs: number): TreeMessage[] {
    return [...this.#messageByKey.values()].filter(({ bornMs }) => bornMs >= sinceMs);
  }
}

/** One that can be asked for a message. */
export interface Announcer {
  readonly sender: ActorId;
  readonly round: number;
}

/** A message that was announced and has not come. */
export interface MissingMessage {
  readonly key: string;
  readonly id: ChangeId;
  /** In the order in which they announced it; whoever was asked is taken out. */
  readonly announcers: Announcer[];
  tries: number;
  dueMs: number;
}

/** Announced messages, by how often they were asked for; within that in order of when they are due. */
export class MissingTable {
  readonly #missingByKey = new Map<string, MissingMessage>();
  readonly #queueByTries: Set<MissingMessage>[] = [];
  readonly #entriesMax: number;

  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
  }

  get size(): number {
    return this.#missingByKey.size;
  }

  get(key: string): MissingMessage | undefined {
    return this.#missingByKey.get(key);
  }

  /** Waits for a message until `dueMs`, which must not be less than that of an earlier `add`. */
  add(key: string, id: ChangeId, options: { announcer: Announcer; dueMs: number }): void {
    const { announcer, dueMs } = options;
    const missing = { key, id, announcers: [announcer], tries: 0, dueMs };
    this.#missingByKey.set(key, missing);
    this.#queue(0).add(missing);
    for (const oldest of this.#missingByKey.keys()) {
      if (this.size <= this.#entriesMax) break;
      this.delete(oldest);
    }
  }

  /** The message has come, or is given up. */
  delete(key: string): void {
    const missing = this.#missingByKey.get(key);
    if (missing === undefined) return;
    this.#missingByKey.delete(key);
    this.#queue(missing.tries).delete(missing);
  }

  /** Waits for it once more. */
  retry(missing: MissingMessage, dueMs: number): void {
    missing.tries += 1;
    missing.dueMs = dueMs;
    this.#queue(missing.tries).add(missing);
  }

  /** Takes out of the queues what is due; it stays known until `retry` or `delete`. */
  takeDue(nowMs: number): MissingMessage[] {
    const due: MissingMessage[] = [];
    for (const queue of this.#queueByTries) {
      for (const missing of queue) {
        if (missing.dueMs > nowMs) break;
        queue.delete(missing);
        due.push(missing);
      }
    }
    return due;
  }

  /** When the next is due; `Infinity` = none. */
  deadlineMs(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const queue of this.#queueByTries) {
      for (const { dueMs } of queue) {
        least = Math.min(least, dueMs);
        break;
      }
    }
    return least;
  }

  #queue(tries: number): Set<MissingMessage> {
    return (this.#queueByTries[tries] ??= new Set());
  }
}
