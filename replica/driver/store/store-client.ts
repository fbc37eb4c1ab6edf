/**
 * The store as other threads see it: calls become messages to the store worker, answers resolve
 * promises. `changes` is a stream of its own, straight from the worker.
 */
import type { MessagePort } from "node:worker_threads";
import { MessageChannel } from "node:worker_threads";
import { assert } from "#base/errors.ts";
import { EncodedChangeset } from "../../core/wire/encoded-changeset.ts";
import type {
  ActorBook,
  ActorId,
  ApplyOutcome,
  ChangeStore,
  ChangeStreamEvent,
  Changeset,
  LocalCommit,
  ReadVersionsRequest,
  Statement,
  TransactionAnswer,
  Watermark,
} from "../../types.ts";
import type { OutcomeRecord } from "./apply.ts";
import type { CommitWatch } from "./commit-watchers.ts";
import type { BookRepair, BooksReport, RowSlice, RowsReport } from "./books-check.ts";
import { readChangeStream } from "./change-stream.ts";
import { recordToError, storeError } from "./errors.ts";
import type { DocumentByKind, ListRequest, ObjectKind, StoredObject } from "./objects.ts";
import type { SchemaFile } from "./schema-files.ts";
import type { SchemaAnswer, StoreStats } from "./store.ts";
import type {
  Greeting,
  MemberRecord,
  PackedAnswer,
  PackedChangesets,
  PackedCommit,
  StoreReply,
  StoreRequest,
} from "./store-messages.ts";
import {
  packChangesets,
  packStatements,
  unpackAnswer,
  unpackChangesets,
  unpackCommit,
} from "./store-messages.ts";

/** A connection to the store worker. Calls are answered in order of urgency, not of arrival. */
export class StoreClient implements ChangeStore {
  readonly actorId: ActorId;
  readonly databaseId: string;
  readonly books: ReadonlyMap<ActorId, ActorBook>;
  /** The cluster id saved with `saveClusterId`, as it was at `connect`; null = never. */
  readonly clusterId: number | null;
  /** Versions of our own may be gone that others have, as it was at `connect`. */
  readonly isInDoubt: boolean;
  readonly #calls: CallPort;

  private constructor(calls: CallPort, greeting: Greeting) {
    this.#calls = calls;
    this.actorId = greeting.actorId;
    this.databaseId = greeting.databaseId;
    this.books = greeting.books;
    this.clusterId = greeting.clusterId;
    this.isInDoubt = greeting.isInDoubt;
  }

  /** Makes a client of a port from `StoreThread.connect`. */
  static async connect(port: MessagePort): Promise<StoreClient> {
    const calls = new CallPort(port);
    return new StoreClient(calls, await calls.call<Greeting>({ kind: "greet" }));
  }

  /** See `ChangeStore.transact`; ends with `STORE_TIMEOUT` after `timeoutMs` of work, 0 = never. */
  async transact(
    statements: readonly Statement[],
    ts: bigint,
    timeoutMs = 0,
  ): Promise<TransactionAnswer> {
    const packed = packStatements(statements);
    const request: StoreRequest = { kind: "transact", statements: packed, ts, timeoutMs };
    return unpackAnswer(await this.#calls.call<PackedAnswer>(request));
  }

  /**
   * See `ChangeStore.apply`; rejects only when the disk or the file fails (`STORE_FULL`,
   * `STORE_CORRUPT`, `STORE_BUSY`): a part may then be applied, and applying again is safe.
   * `isUrgent` (deletes, health-downs) overtakes everything that waits. Encoded changesets are handed
   * over: they have no changes afterwards.
   */
  async apply(
    changesets: readonly Changeset[],
    options: { readonly isUrgent?: boolean } = {},
  ): Promise<readonly ApplyOutcome[]> {
    const buffers: ArrayBuffer[] = [];
    const packed = packChangesets(changesets, buffers);
    for (const one of changesets) if (one instanceof EncodedChangeset) one.release();
    const request = { kind: "apply", packed, isUrgent: options.isUrgent ?? false } as const;
    const records = await this.#calls.call<OutcomeRecord[]>(request, buffers);
    return records.map((record, index) => toOutcome(record, changesets[index]));
  }

  /** With `isEncoded` full changesets come as `EncodedChangeset`s. */
  async readVersions(
    request: ReadVersionsRequest,
    { isEncoded = false } = {},
  ): Promise<readonly Changeset[]> {
    const call: StoreRequest = { kind: "readVersions", request, isEncoded };
    const packed = await this.#calls.call<PackedChangesets>(call);
    return unpackChangesets(packed);
  }

  /**
   * Writes a whole object as one version of ours; null when nothing differs. A machine replaces all
   * of its services and checks. Rejects with `STORE_OWNER` (another node's row), `STORE_OBJECT`.
   */
  async putObject<Kind extends ObjectKind>(
    kind: Kind,
    document: DocumentByKind[Kind],
    ts: bigint,
  ): Promise<LocalCommit | null> {
    const request: StoreRequest = { kind: "putObject", objectKind: kind, document, ts };
    return unpackCommit(await this.#calls.call<PackedCommit | null>(request));
  }

  /** Deletes an object with its parts. Rejects with `STORE_OWNER`. */
  async deleteObject(
    kind: ObjectKind,
    objectId: string,
    ts: bigint,
  ): Promise<{ commit: LocalCommit | null; existed: boolean }> {
    const request: StoreRequest = { kind: "deleteObject", objectKind: kind, objectId, ts };
    const answer = await this.#calls.call<{ commit: PackedCommit | null; existed: boolean }>(
      request,
    );
    return { existed: answer.existed, commit: unpackCommit(answer.commit) };
  }

  /** One object, or null. */
  getObject<Kind extends ObjectKind>(
    kind: Kind,
    objectId: string,
  ): Promise<StoredObject<Kind> | null> {
    return this.#calls.call({ kind: "getObject", objectKind: kind, objectId });
  }

  /** A page of objects in order of their ids. */
  listObjects<Kind extends ObjectKind>(
    kind: Kind,
    page: ListRequest,
  ): Promise<StoredObject<Kind>[]> {
    return this.#calls.call({ kind: "listObjects", objectKind: kind, page });
  }

  /** Brings the schema up to date. Rejects with `STORE_SCHEMA`; the schema is then as it was. */
  async applySchema(files: readonly SchemaFile[], ts: bigint): Promise<SchemaAnswer> {
    const request: StoreRequest = { kind: "applySchema", files, ts };
    const answer = await this.#calls.call<
      Omit<SchemaAnswer, "commit"> & { commit: PackedCommit | null }
    >(request);
    return { ...answer, commit: unpackCommit(answer.commit) };
  }

  /** Replaces the members kept over a restart. */
  saveMembers(members: readonly MemberRecord[]): Promise<void> {
    return this.#calls.call({ kind: "saveMembers", members });
  }

  /** The members kept over a restart. */
  loadMembers(): Promise<MemberRecord[]> {
    return this.#calls.call({ kind: "loadMembers" });
  }

  /** Keeps the cluster id over a restart. */
  saveClusterId(clusterId: number): Promise<void> {
    return this.#calls.call({ kind: "saveClusterId", clusterId });
  }

  /** Goes on above `head`, the greatest version of ours that others know of; ends the doubt. */
  settleOwnVersions(head: number): Promise<void> {
    return this.#calls.call({ kind: "settleOwnVersions", head });
  }

  /** Resolves when all own commits before the call outlive a power loss. */
  makeDurable(): Promise<void> {
    return this.#calls.call({ kind: "makeDurable" });
  }

  /** Has the next start of the store take a new actor id and publish our rows under it. */
  requestNewIdentity(): Promise<void> {
    return this.#calls.call({ kind: "requestNewIdentity" });
  }

  /** Compares the books in memory with those stored, and with the record of versions. */
  checkBooks(): Promise<BooksReport> {
    return this.#calls.call({ kind: "checkBooks" });
  }

  /** Compares one slice of rows with the record of versions; `next` is where to go on. */
  checkRows(slice: RowSlice): Promise<RowsReport> {
    return this.#calls.call({ kind: "checkRows", slice });
  }

  /** Writes the stored books anew from memory, disk and rows; the answer is what counts now. */
  repairBooks(): Promise<{ repairs: BookRepair[]; books: ReadonlyMap<ActorId, ActorBook> }> {
    return this.#calls.call({ kind: "repairBooks" });
  }

  /** Counters and gauges of the worker. */
  stats(): Promise<StoreStats> {
    return this.#calls.call({ kind: "stats" });
  }

  /**
   * Committed row changes in order, from a watermark or (null) from all rows. The reader sets the
   * pace: nothing is buffered beyond a few batches, and one that falls far behind sees `reset`.
   * End it with `return` (leaving a `for await` does). Throws `STORE_CLOSED` when the store ends.
   */
  changes(options: {
    readonly from: Watermark | null;
    /** Default: all tables. */
    readonly tables?: readonly string[];
  }): AsyncIterableIterator<ChangeStreamEvent> {
    const { port1, port2 } = new MessageChannel();
    const stream = { from: options.from, tables: options.tables ?? null, credit: STREAM_CREDIT };
    const request: StoreRequest = { kind: "subscribe", port: port1, stream };
    const subscribed = this.#calls.call<null>(request, [port1]);
    return readChangeStream(port2, subscribed, STREAM_CREDIT);
  }

  /** Tells when something was committed; it may go to another thread. */
  async watchCommits(): Promise<CommitWatch> {
    const { port1, port2 } = new MessageChannel();
    const isTold = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    await this.#calls.call<null>({ kind: "watch", port: port1, isTold }, [port1]);
    return { port: port2, isTold };
  }

  /** Gives up the connection; calls not yet answered reject with `STORE_CLOSED`. */
  close(): void {
    this.#calls.close();
  }
}

interface PendingCall {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Numbers calls and matches answers. */
class CallPort {
  readonly #port: MessagePort;
  readonly #pending = new Map<number, PendingCall>();
  #nextId = 1;
  #isClosed = false;

  constructor(port: MessagePort) {
    this.#port = port;
    port.on("message", (message: StoreReply) => this.#onReply(message));
    port.on("close", () => this.#fail());
    // A thread with nothing else to do may end, unless it waits for an answer.
    port.unref();
  }

  call<Value>(request: StoreRequest, given: (MessagePort | ArrayBuffer)[] = []): Promise<Value> {
    if (this.#isClosed) return Promise.reject(closedError());
    const id = this.#nextId++;
    return new Promise<Value>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
      if (this.#pending.size === 1) this.#port.ref();
      this.#port.postMessage({ id, request }, given);
    });
  }

  close(): void {
    this.#port.close();
    this.#fail();
  }

  #onReply(message: StoreReply): void {
    const pending = this.#pending.get(message.id);
    assert(pending !== undefined, "an answer has a call");
    this.#pending.delete(message.id);
    if (this.#pending.size === 0) this.#port.unref();
    if (message.kind === "done") pending.resolve(message.value);
    else pending.reject(recordToError(message.error));
  }

  #fail(): void {
    this.#isClosed = true;
    for (const pending of this.#pending.values()) pending.reject(closedError());
    this.#pending.clear();
  }
}

function closedError(): Error {
  return storeError("STORE_CLOSED", "the store is closed");
}

function toOutcome(record: OutcomeRecord, changeset: Changeset | undefined): ApplyOutcome {
  assert(changeset !== undefined, "an outcome has a changeset");
  const { kind, rowsChanged, reason } = record;
  if (kind === "applied") return { kind, changeset, rowsChanged };
  if (kind === "refused") return { kind, changeset, reason };
  if (kind === "known") return { kind, changeset };
  assert(changeset.kind === "full", "only rows are buffered");
  return { kind, changeset };
}

/** Batches on their way to a reader: enough to keep it busy, few enough to stay small. */
const STREAM_CREDIT = 16;
