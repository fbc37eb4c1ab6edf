/**
 * What the store worker and its clients say to each other over a MessagePort.
 *
 * Requests carry a number and are answered by `done` or `failed` with the same number, not
 * necessarily in order. Changesets travel flattened, because V8 copies one long array of
 * primitives several times faster than many small objects.
 */
import type { MessagePort } from "node:worker_threads";
import type { StreamStart } from "../../core/change-stream/stream-publisher.ts";
import type {
  ActorBook,
  ActorId,
  Changeset,
  ColumnChange,
  FullChangeset,
  LocalCommit,
  ReadVersionsRequest,
  SqlValue,
  Statement,
  TransactionAnswer,
} from "../../types.ts";
import { EncodedChangeset } from "../../core/wire/encoded-changeset.ts";
import type { RowSlice } from "./books-check.ts";
import type { CommitWatch } from "./commit-watchers.ts";
import type { ErrorRecord } from "./errors.ts";
import type { ListRequest, ObjectKind, DocumentByKind } from "./objects.ts";
import type { SchemaFile } from "./schema-files.ts";

/** A member of the cluster as kept over a restart. */
export interface MemberRecord {
  readonly actorId: ActorId;
  readonly address: string;
  /** JSON of whatever the membership keeps. */
  readonly state: string;
  /** Least round-trip time in milliseconds; null = never measured. */
  readonly rttMinMs: number | null;
  /** Unix milliseconds. */
  readonly updatedAtMs: number;
}

/** A request; what is answered is in the comment. */
export type StoreRequest =
  /** PackedAnswer */
  | {
      readonly kind: "transact";
      readonly statements: PackedStatements;
      readonly ts: bigint;
      /** 0 = without limit. */
      readonly timeoutMs: number;
    }
  /** OutcomeRecord[] */
  | { readonly kind: "apply"; readonly packed: PackedChangesets; readonly isUrgent: boolean }
  /** PackedChangesets */
  | {
      readonly kind: "readVersions";
      readonly request: ReadVersionsRequest;
      readonly isEncoded: boolean;
    }
  /** PackedCommit | null */
  | {
      readonly kind: "putObject";
      readonly objectKind: ObjectKind;
      readonly document: DocumentByKind[ObjectKind];
      readonly ts: bigint;
    }
  /** { commit: PackedCommit | null, existed: boolean } */
  | {
      readonly kind: "deleteObject";
      readonly objectKind: ObjectKind;
      readonly objectId: string;
      readonly ts: bigint;
    }
  /** StoredObject | null */
  | { readonly kind: "getObject"; readonly objectKind: ObjectKind; readonly objectId: string }
  /** StoredObject[] */
  | { readonly kind: "listObjects"; readonly objectKind: ObjectKind; readonly page: ListRequest }
  /** SchemaAnswer with its commit packed */
  | { readonly kind: "applySchema"; readonly files: readonly SchemaFile[]; readonly ts: bigint }
  /** nothing */
  | { readonly kind: "saveMembers"; readonly members: readonly MemberRecord[] }
  /** MemberRecord[] */
  | { readonly kind: "loadMembers" }
  /** BooksReport */
  | { readonly kind: "checkBooks" }
  /** RowsReport */
  | { readonly kind: "checkRows"; readonly slice: RowSlice }
  /** { repairs: BookRepair[], books } */
  | { readonly kind: "repairBooks" }
  /** nothing */
  | { readonly kind: "saveClusterId"; readonly clusterId: number }
  /** nothing */
  | { readonly kind: "settleOwnVersions"; readonly head: number }
  /** nothing */
  | { readonly kind: "requestNewIdentity" }
  /** nothing, once own commits are on the disk for good */
  | { readonly kind: "makeDurable" }
  /** StoreStats */
  | { readonly kind: "stats" }
  /** Greeting: the bookkeeping as it is now */
  | { readonly kind: "greet" }
  /** nothing; events come over `port` */
  | { readonly kind: "subscribe"; readonly port: MessagePort; readonly stream: StreamStart }
  /** nothing; local numbers come over `port`, see `CommitWatchers` */
  | ({ readonly kind: "watch" } & CommitWatch);

/** A request with its number. */
export interface StoreCall {
  readonly id: number;
  readonly request: StoreRequest;
}

/** An answer. */
export type StoreReply =
  | { readonly kind: "done"; readonly id: number; readonly value: unknown }
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorRecord };

/** The first answer of a worker to a client. */
export interface Greeting {
  readonly actorId: ActorId;
  readonly databaseId: string;
  readonly books: ReadonlyMap<ActorId, ActorBook>;
  /** As last saved; null = never. */
  readonly clusterId: number | null;
  /** Versions of our own may be gone that others have: nothing can be written yet. */
  readonly isInDoubt: boolean;
}

/** Statements as one list: see `packStatements`. */
export interface PackedStatements {
  /** SQL texts, each once. */
  readonly texts: readonly string[];
  readonly list: readonly unknown[];
}

/** A commit with its changesets packed. */
export interface PackedCommit extends Omit<LocalCommit, "changesets"> {
  readonly packed: PackedChangesets;
}

/** A transaction's answer; `results` alternates rows affected and milliseconds. */
export interface PackedAnswer {
  readonly results: Float64Array;
  readonly timeMs: number;
  readonly commit: PackedCommit | null;
}

/** Changesets as one list of primitives, keys and blobs: see `packChangesets`. */
export type PackedChangesets = readonly unknown[];

/**
 * Flattens changesets. Per full changeset `1, actorId, version, seqs.start, seqs.end, lastSeq, ts,
 * count`, then per change `table, pk, cid, val, colVersion, seq, cl`; per empty one `0, actorId,
 * start, end, ts`; per encoded one as of a full one, but `2` and, in place of the changes, its bytes.
 * The bytes of all are one buffer, which is added to `buffers`: it may be transferred.
 */
export function packChangesets(
  changesets: readonly Changeset[],
  buffers: ArrayBuffer[] = [],
): PackedChangesets {
  const packed: unknown[] = [];
  const joined = new JoinedBytes(changesets);
  // The columns of a row share one key: as one object it is copied once.
  let given: Uint8Array | null = null;
  let key: Uint8Array = new Uint8Array();
  for (const changeset of changesets) {
    if (changeset.kind === "empty") {
      const { start, end } = changeset.versions;
      packed.push(0, changeset.actorId, start, end, changeset.ts);
      continue;
    }
    const { actorId, version, seqs, lastSeq, ts } = changeset;
    if (changeset instanceof EncodedChangeset) {
      packed.push(2, actorId, version, seqs.start, seqs.end, lastSeq, ts, changeset.changeCount);
      packed.push(joined.add(changeset.bytes));
      continue;
    }
    const { changes } = changeset;
    packed.push(1, actorId, version, seqs.start, seqs.end, lastSeq, ts, changes.length);
    for (const change of changes) {
      const { table, pk, cid, val, colVersion, seq, cl } = change;
      if (pk !== given) key = owned(pk);
      given = pk;
      packed.push(table, key, cid, ownedValue(val), colVersion, seq, cl);
    }
  }
  if (joined.buffer.byteLength > 0) buffers.push(joined.buffer);
  return packed;
}

/** The bytes of all encoded changesets, one after the other in one buffer. */
class JoinedBytes {
  readonly buffer: ArrayBuffer;
  #offset = 0;

  constructor(changesets: readonly Changeset[]) {
    let length = 0;
    for (const one of changesets) if (one instanceof EncodedChangeset) length += one.bytes.length;
    this.buffer = new ArrayBuffer(length);
  }

  add(bytes: Uint8Array): Uint8Array {
    const copy = new Uint8Array(this.buffer, this.#offset, bytes.length);
    copy.set(bytes);
    this.#offset += bytes.length;
    return copy;
  }
}

/** The changesets again; only for what `packChangesets` made. */
export function unpackChangesets(packed: PackedChangesets): Changeset[] {
  const changesets: Changeset[] = [];
  let at = 0;
  const take = (): unknown => packed[at++];
  while (at < packed.length) {
    const kind = take();
    if (kind === 0) {
      const actorId = take() as ActorId;
      const versions = { start: take() as number, end: take() as number };
      changesets.push({ kind: "empty", actorId, versions, ts: take() as bigint | null });
      continue;
    }
    const actorId = take() as ActorId;
    const version = take() as number;
    const seqs = { start: take() as number, end: take() as number };
    const lastSeq = take() as number;
    const ts = take() as bigint;
    const changeCount = take() as number;
    if (kind === 2) {
      const header = { actorId, version, seqs, lastSeq, ts, changeCount };
      changesets.push(new EncodedChangeset(header, take() as Uint8Array));
      continue;
    }
    const changes: ColumnChange[] = [];
    for (let count = changeCount; count > 0; count -= 1) {
      changes.push({
        table: take() as string,
        pk: take() as Uint8Array,
        cid: take() as string,
        val: take() as SqlValue,
        colVersion: take() as number,
        seq: take() as number,
        cl: take() as number,
      });
    }
    changesets.push({ kind: "full", actorId, version, changes, seqs, lastSeq, ts });
  }
  return changesets;
}

/**
 * Flattens statements. Per statement the index of its text, then the number of its positional
 * parameters and these, or -1 and an object of named ones.
 */
export function packStatements(statements: readonly Statement[]): PackedStatements {
  const texts: string[] = [];
  const indexByText = new Map<string, number>();
  const list: unknown[] = [];
  for (const { sql, params } of statements) {
    let index = indexByText.get(sql);
    if (index === undefined) {
      index = texts.push(sql) - 1;
      indexByText.set(sql, index);
    }
    list.push(index);
    if (params === undefined) list.push(0);
    else if (isPositional(params)) list.push(params.length, ...params.map(ownedValue));
    else list.push(-1, params);
  }
  return { texts, list };
}

/** The statements again; only for what `packStatements` made. */
export function unpackStatements({ texts, list }: PackedStatements): Statement[] {
  const statements: Statement[] = [];
  for (let at = 0; at < list.length;) {
    const sql = texts[list[at] as number] ?? "";
    const count = list[at + 1] as number;
    if (count < 0) {
      statements.push({ sql, params: list[at + 2] as NonNullable<Statement["params"]> });
      at += 3;
    } else {
      statements.push({ sql, params: list.slice(at + 2, at + 2 + count) as SqlValue[] });
      at += 2 + count;
    }
  }
  return statements;
}

/** Flattens a transaction's answer. */
export function packAnswer({ results, timeMs, commit }: TransactionAnswer): PackedAnswer {
  const packed = new Float64Array(results.length * 2);
  for (const [index, result] of results.entries()) {
    packed[index * 2] = result.rowsAffected;
    packed[index * 2 + 1] = result.timeMs;
  }
  return { results: packed, timeMs, commit: packCommit(commit) };
}

/** The answer again. */
export function unpackAnswer({ results, timeMs, commit }: PackedAnswer): TransactionAnswer {
  const list = Array.from({ length: results.length / 2 }, (_, index) => ({
    rowsAffected: results[index * 2] ?? 0,
    timeMs: results[index * 2 + 1] ?? 0,
  }));
  return { results: list, timeMs, commit: unpackCommit(commit) };
}

/** Flattens a commit's changesets. */
export function packCommit(commit: LocalCommit | null): PackedCommit | null {
  if (commit === null) return null;
  const { version, lastSeq, ts, changesets } = commit;
  return { version, lastSeq, ts, packed: packChangesets(changesets) };
}

/** The commit again. */
export function unpackCommit(commit: PackedCommit | null): LocalCommit | null {
  if (commit === null) return null;
  const { version, lastSeq, ts, packed } = commit;
  return { version, lastSeq, ts, changesets: unpackChangesets(packed) as FullChangeset[] };
}

function isPositional(params: NonNullable<Statement["params"]>): params is readonly SqlValue[] {
  return Array.isArray(params);
}

/** A view of a large buffer would be copied with all of that buffer. */
function owned(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
}

function ownedValue(value: SqlValue): SqlValue {
  return value instanceof Uint8Array ? owned(value) : value;
}
