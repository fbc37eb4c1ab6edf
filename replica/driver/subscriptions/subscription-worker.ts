/**
 * The thread of subscriptions: reads the store's file on a connection of its own, so that neither
 * the store nor the replica waits for a query or for a reader.
 *
 * A commit is taken in at once when the thread has been idle, else `TURN_MS` after the turn before:
 * a single change leaves within a millisecond or two, and a flood costs 200 turns a second.
 */
import { parentPort, workerData } from "node:worker_threads";
import Database from "better-sqlite3";
import { assert } from "#base/errors.ts";
import { errorToRecord, toStoreError } from "../store/errors.ts";
import { Reader } from "./reader.ts";
import { SubscriptionDesk, type Opened } from "./subscription-desk.ts";
import type {
  StreamTarget,
  SubscriptionEvent,
  SubscriptionRequest,
  SubscriptionWorkerOptions,
} from "./subscription-messages.ts";

/** The desk with its readers and its clock. */
class DeskLoop {
  readonly #options: SubscriptionWorkerOptions;
  readonly #send: (event: SubscriptionEvent) => void;
  readonly #database: Database.Database;
  readonly #desk: SubscriptionDesk;
  readonly #readerById = new Map<number, Reader>();
  readonly #expiry: NodeJS.Timeout;
  #timer: NodeJS.Timeout | null = null;
  #timerAtMs = Infinity;
  #turnedMs = -Infinity;

  constructor(options: SubscriptionWorkerOptions, send: (event: SubscriptionEvent) => void) {
    this.#options = options;
    this.#send = send;
    const { databasePath, deadlinePath, folder, limits } = options;
    const connection = { readonly: true, fileMustExist: true, timeout: BUSY_TIMEOUT_MS };
    this.#database = new Database(databasePath, connection);
    this.#database.defaultSafeIntegers(true);
    this.#database.pragma("query_only = ON");
    const notice = (text: string): void => send({ kind: "notice", text });
    const clock = (): number => performance.now();
    this.#desk = new SubscriptionDesk({
      database: this.#database,
      deadlinePath,
      folder,
      limits,
      notice,
      clock,
    });
    options.commits.port.on("message", () => this.#turnAt(this.#turnedMs + TURN_MS));
    const periodMs = Math.max(1, Math.min(limits.idleMs / 4, EXPIRY_MS_MAX));
    this.#expiry = setInterval(() => this.#desk.expire(performance.now()), periodMs);
    this.#restoreSoon();
  }

  handle(request: SubscriptionRequest): void {
    switch (request.kind) {
      case "open":
        return this.#open(request.readerId, request.target);
      case "credit":
        return this.#readerById.get(request.readerId)?.grant(request.size);
      case "leave":
        return this.#readerById.get(request.readerId)?.end();
      case "view": {
        const views = this.#desk.views(request.filter);
        return this.#send({ kind: "views", askId: request.askId, views });
      }
      case "close":
        return this.#close();
    }
  }

  #open(readerId: number, target: StreamTarget): void {
    let opened: Opened;
    try {
      opened = this.#desk.open(target);
    } catch (thrown) {
      return this.#send({ kind: "refused", readerId, error: errorToRecord(thrown) });
    }
    const { creditMax, waitingMax } = this.#options.limits;
    const reader = new Reader({
      id: readerId,
      send: (text) => this.#send({ kind: "chunk", readerId, text }),
      onEnd: (one) => {
        this.#readerById.delete(readerId);
        opened.leave(one);
        this.#send({ kind: "end", readerId });
      },
      credit: creditMax,
      waitingMax,
    });
    this.#readerById.set(readerId, reader);
    const { queryId, queryHash } = opened;
    this.#send({ kind: "opened", readerId, queryId, queryHash });
    opened.start(reader);
    this.#turnWhenDue();
  }

  #turnAt(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const waitMs = atMs - performance.now();
    if (waitMs <= 0) return this.#turn();
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => this.#turn(), Math.ceil(waitMs));
  }

  #turn(): void {
    this.#timer = null;
    this.#timerAtMs = Infinity;
    this.#turnedMs = performance.now();
    // What is committed from here on is told anew.
    Atomics.store(this.#options.commits.isTold, 0, 0);
    this.#desk.turn();
    this.#turnWhenDue();
  }

  #turnWhenDue(): void {
    const { dueMs } = this.#desk;
    if (dueMs < Infinity) this.#turnAt(Math.max(dueMs, this.#turnedMs + TURN_MS));
  }

  /** One at a time: whoever asks for something else does not wait for all. */
  #restoreSoon(): void {
    if (this.#desk.unrestoredCount === 0) return;
    setImmediate(() => {
      this.#desk.restoreNext();
      this.#restoreSoon();
    });
  }

  #close(): void {
    clearInterval(this.#expiry);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#options.commits.port.close();
    this.#desk.close();
    this.#database.close();
    parentPort?.close();
  }
}

function start(): void {
  assert(parentPort !== null, "the worker of subscriptions runs in a thread of its own");
  const port = parentPort;
  const send = (event: SubscriptionEvent): void => port.postMessage(event);
  try {
    const loop = new DeskLoop(workerData as SubscriptionWorkerOptions, send);
    port.on("message", (request: SubscriptionRequest) => loop.handle(request));
    send({ kind: "ready" });
  } catch (thrown) {
    send({ kind: "broken", error: errorToRecord(toStoreError(thrown, "STORE_CORRUPT")) });
    port.close();
  }
}

/** Least time between two turns under load: half of the 10 ms that a line may take to leave. */
const TURN_MS = 5;
const BUSY_TIMEOUT_MS = 1_000;
const EXPIRY_MS_MAX = 30_000;

start();
