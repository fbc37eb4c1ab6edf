/**
 * The store worker's thread: one queue of requests by urgency in front of one `Store`.
 *
 *     urgent apply  >  local writes  >  reads and pages of streams  >  slices of bulk apply
 *
 * Each turn does one piece of work of about `SLICE_MS` and gives the loop a chance to take in
 * messages, so an urgent change waits for one slice at most. Reads and bulk work take turns when
 * both wait: neither may starve the other.
 */
import type { MessagePort } from "node:worker_threads";
import { parentPort, workerData } from "node:worker_threads";
import { assert } from "#base/errors.ts";
import { EncodedChangeset } from "../../core/wire/encoded-changeset.ts";
import type { Changeset, LocalCommit } from "../../types.ts";
import type { ApplyJob } from "./apply.ts";
import { errorToRecord, storeError } from "./errors.ts";
import type { StoreOptions } from "./store.ts";
import { Store } from "./store.ts";
import type {
  PackedChangesets,
  PackedCommit,
  StoreCall,
  StoreReply,
  StoreRequest,
} from "./store-messages.ts";
import {
  packAnswer,
  packChangesets,
  packCommit,
  unpackChangesets,
  unpackStatements,
} from "./store-messages.ts";

/** What the parent sends to the thread. */
export type StoreThreadMessage =
  | { readonly kind: "connect"; readonly port: MessagePort }
  | { readonly kind: "close" };

/** What the thread sends to its parent. */
export type StoreThreadEvent =
  | { readonly kind: "ready" }
  | { readonly kind: "failed"; readonly error: ReturnType<typeof errorToRecord> }
  | { readonly kind: "closed" };

/** A request that waits. */
interface Waiting {
  readonly port: MessagePort;
  readonly id: number;
  readonly request: StoreRequest;
  /** Of an apply. */
  readonly job: ApplyJob | null;
}

/** Work by urgency; a turn takes the first of the first queue that has any. */
class WorkLoop {
  readonly #store: Store;
  readonly #urgent: Waiting[] = [];
  readonly #writes: Waiting[] = [];
  readonly #reads: Waiting[] = [];
  readonly #bulk: Waiting[] = [];
  #isScheduled = false;
  /** Whether the last turn at the two lowest levels went to the reads. */
  #hasRead = false;

  constructor(store: Store) {
    this.#store = store;
  }

  get queued(): number {
    const { length } = this.#urgent;
    return length + this.#writes.length + this.#reads.length + this.#bulk.length;
  }

  /** Takes requests from a client's port. */
  connect(port: MessagePort): void {
    port.on("message", (call: StoreCall) => this.#enqueue(port, call));
  }

  #enqueue(port: MessagePort, call: StoreCall): void {
    const { id, request } = call;
    if (request.kind === "subscribe") {
      this.#store.publisher.subscribe(request.port, request.stream, () => this.#schedule());
      reply(port, { kind: "done", id, value: null });
      return;
    }
    if (request.kind === "watch") {
      this.#store.publisher.watchers.add(request);
      reply(port, { kind: "done", id, value: null });
      return;
    }
    const isApply = request.kind === "apply";
    const job = isApply ? { changesets: unpackChangesets(request.packed), outcomes: [] } : null;
    const queue = this.#queueOf(request);
    if (queue.length >= QUEUE_MAX) {
      const error = storeError("STORE_BUSY", `${QUEUE_MAX} requests are waiting`);
      reply(port, { kind: "failed", id, error: errorToRecord(error) });
      return;
    }
    queue.push({ port, id, request, job });
    this.#schedule();
  }

  #queueOf(request: StoreRequest): Waiting[] {
    switch (request.kind) {
      case "apply":
        return request.isUrgent ? this.#urgent : this.#bulk;
      case "transact":
      case "putObject":
      case "deleteObject":
      case "saveMembers":
      case "saveClusterId":
      case "settleOwnVersions":
      case "requestNewIdentity":
      case "applySchema":
      case "repairBooks":
        return this.#writes;
      default:
        return this.#reads;
    }
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    if (this.queued === 0 && !this.#store.publisher.hasWork()) return;
    this.#isScheduled = true;
    // An immediate lets messages in between two turns; a microtask would not.
    setImmediate(() => {
      this.#isScheduled = false;
      this.#turn();
      this.#schedule();
    });
  }

  #turn(): void {
    const first = this.#urgent.length > 0 ? this.#urgent : this.#writes;
    if (first.length > 0) return this.#serve(first);
    const hasPages = this.#store.publisher.hasWork();
    const mayRead = this.#reads.length > 0 || hasPages;
    if (mayRead && (this.#bulk.length === 0 || !this.#hasRead)) {
      this.#hasRead = true;
      if (hasPages) this.#store.publisher.step();
      return this.#serve(this.#reads);
    }
    this.#hasRead = false;
    this.#serve(this.#bulk);
  }

  /** Does one piece of the first request of a queue; a request that is done leaves it. */
  #serve(queue: Waiting[]): void {
    const waiting = queue[0];
    if (waiting === undefined) return;
    const { port, id, request, job } = waiting;
    try {
      if (request.kind === "readVersions") {
        const buffers: ArrayBuffer[] = [];
        this.#answer(waiting, this.#readVersions(request, buffers), buffers);
      } else if (job !== null) {
        if (job.changesets.length > 0) this.#store.applySlice(job, SLICE_MS);
        if (job.outcomes.length < job.changesets.length) return;
        reply(port, { kind: "done", id, value: job.outcomes });
      } else {
        this.#answer(waiting, this.#perform(request));
      }
    } catch (thrown) {
      this.#store.noteFailure(thrown);
      reply(port, { kind: "failed", id, error: errorToRecord(thrown) });
    }
    queue.shift();
  }

  /** What a peer will be told of our versions waits until the disk has what it rests on. */
  #answer({ port, id, request }: Waiting, value: unknown, buffers: ArrayBuffer[] = []): void {
    const done = (): void => reply(port, { kind: "done", id, value }, buffers);
    if (request.kind !== "readVersions" && request.kind !== "makeDurable") return done();
    this.#store.whenDurable((error) => {
      if (error === null) return done();
      this.#store.noteFailure(error);
      reply(port, { kind: "failed", id, error: errorToRecord(error) });
    });
  }

  /** The answer; its buffers are added to `buffers`. */
  #readVersions(
    { request, isEncoded }: Extract<StoreRequest, { kind: "readVersions" }>,
    buffers: ArrayBuffer[],
  ): PackedChangesets {
    const read = this.#store.server.read(request);
    const encode = (one: Changeset): Changeset =>
      one.kind === "full" ? EncodedChangeset.of(one) : one;
    return packChangesets(isEncoded ? read.map(encode) : read, buffers);
  }

  #perform(request: StoreRequest): unknown {
    const store = this.#store;
    switch (request.kind) {
      case "transact":
        return packAnswer(
          store.transact(unpackStatements(request.statements), request.ts, request.timeoutMs),
        );
      case "putObject":
        return packCommit(store.putObject(request.objectKind, request.document, request.ts));
      case "deleteObject":
        return withPackedCommit(
          store.deleteObject(request.objectKind, request.objectId, request.ts),
        );
      case "applySchema":
        return withPackedCommit(store.applySchema(request.files, request.ts));
      case "saveMembers":
        return store.saveMembers(request.members);
      case "getObject":
        return store.objects.get(request.objectKind, request.objectId);
      case "listObjects":
        return store.objects.list(request.objectKind, request.page);
      case "saveClusterId":
        return store.saveClusterId(request.clusterId);
      case "settleOwnVersions":
        return store.settleOwnVersions(request.head);
      case "requestNewIdentity":
        return store.requestNewIdentity();
      case "makeDurable":
        return null;
      case "checkBooks":
        return store.checkBooks();
      case "checkRows":
        return store.checkRows(request.slice);
      case "repairBooks":
        return store.repairBooks();
      case "loadMembers":
        return store.loadMembers();
      case "stats":
        store.retryAfterFailure();
        return store.stats(this.queued);
      case "greet":
        return {
          actorId: store.actorId,
          databaseId: store.databaseId,
          books: store.ledger.books.snapshot(),
          clusterId: store.clusterId,
          isInDoubt: store.isInDoubt,
        };
      default:
        throw storeError("STORE_SQL", `unknown request ${request.kind}`);
    }
  }
}

function withPackedCommit<Answer extends { readonly commit: LocalCommit | null }>(
  answer: Answer,
): Omit<Answer, "commit"> & { readonly commit: PackedCommit | null } {
  return { ...answer, commit: packCommit(answer.commit) };
}

function reply(port: MessagePort, message: StoreReply, buffers: ArrayBuffer[] = []): void {
  port.postMessage(message, buffers);
}

function start(): void {
  assert(parentPort !== null, "the store worker runs in a thread of its own");
  const parent = parentPort;
  const tell = (event: StoreThreadEvent): void => parent.postMessage(event);
  let store: Store;
  try {
    const clocks = { nowMs: () => performance.now(), wallMs: () => Date.now() };
    store = new Store(workerData as StoreOptions, clocks);
  } catch (thrown) {
    tell({ kind: "failed", error: errorToRecord(thrown) });
    parent.close();
    return;
  }
  const loop = new WorkLoop(store);
  parent.on("message", (message: StoreThreadMessage) => {
    if (message.kind === "connect") {
      loop.connect(message.port);
      return;
    }
    store.close();
    tell({ kind: "closed" });
    // Nothing may run on the closed database: what still waits is answered by the thread's end.
    process.exit(0);
  });
  tell({ kind: "ready" });
}

/** Work between two looks at the queue: the longest that an urgent change waits, as a rule. */
const SLICE_MS = 8;
/** Of one queue. Callers wait for answers, so only a runaway one comes near. */
const QUEUE_MAX = 4096;

start();
