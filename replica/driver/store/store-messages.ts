/**
 * What the store worker and its clients say to each other over a MessagePort.
 *
 * Requests carry a number and are answered by `done` or `failed` with the same number, not
 * necessarily in order. Changesets travel flattened, because V8 copies one long array of
 * primitives several times faster than many small objects.
 */
import type { MessagePort } from "node:worker_threads";
import type {
  ActorBook,
  ActorId,
  Changeset,
  ColumnChange,
  ReadVersionsRequest,
  SqlValue,
  Statement,
  Watermark,
} from "../../types.ts";
import type { RowSlice } from "./books-check.ts";
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

/** What a reader of the change stream asks for. */
export interface StreamRequest {
  readonly from: Watermark | null;
  /** Null = all. */
  readonly tables: readonly string[] | null;
  /** Batches that may be sent before the reader grants more. */
  readonly credit: number;
}

/** A request; what is answered is in the comment. */
export type StoreRequest =
  /** TransactionAnswer */
  | { readonly kind: "transact"; readonly statements: readonly Statement[]; readonly ts: bigint }
  /** OutcomeRecord[] */
  | { readonly kind: "apply"; readonly packed: PackedChangesets; readonly isUrgent: boolean }
  /** PackedChangesets */
  | { readonly kind: "readVersions"; readonly request: ReadVersionsRequest }
  /** LocalCommit | null */
  | {
      readonly kind: "putObject";
      readonly objectKind: ObjectKind;
      readonly document: DocumentByKind[ObjectKind];
      readonly ts: bigint;
    }
  /** { commit: LocalCommit | null, existed: boolean } */
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
  /** { change: SchemaChange, commit: LocalCommit | null } */
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
  /** StoreStats */
  | { readonly kind: "stats" }
  /** Greeting: the bookkeeping as it is now */
  | { readonly kind: "greet" }
  /** nothing; events come over `port` */
  | { readonly kind: "subscribe"; readonly port: MessagePort; readonly stream: StreamRequest }
  /** nothing; local numbers come over `port`, see `CommitWatchers` */
  | { readonly kind: "watch"; readonly port: MessagePort };

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

/** Changesets as one list of primitives, keys and blobs: see `packChangesets`. */
export type PackedChangesets = readonly unknown[];

/**
 * Flattens changesets. Per full changeset `1, actorId, version, seqs.start, seqs.end, lastSeq, ts,
 * count`, then per change `table, pk, cid, val, colVersion, seq, cl`; per empty one `0, actorId,
 * start, end, ts`.
 */
export function packChangesets(changesets: readonly Changeset[]): PackedChangesets {
  const packed: unknown[] = [];
  for (const changeset of changesets) {
    if (changeset.kind === "empty") {
      const { start, end } = changeset.versions;
      packed.push(0, changeset.actorId, start, end, changeset.ts);
      continue;
    }
    const { actorId, version, seqs, lastSeq, ts, changes } = changeset;
    packed.push(1, actorId, version, seqs.start, seqs.end, lastSeq, ts, changes.length);
    for (const change of changes) {
      const { table, pk, cid, val, colVersion, seq, cl } = change;
      packed.push(table, owned(pk), cid, ownedValue(val), colVersion, seq, cl);
    }
  }
  return packed;
}

/** The changesets again; only for what `packChangesets` made. */
export function unpackChangesets(packed: PackedChangesets): Changeset[] {
  const changesets: Changeset[] = [];
  let at = 0;
  const take = (): unknown => packed[at++];
  while (at < packed.length) {
    if (take() === 0) {
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
    const changes: ColumnChange[] = [];
    for (let count = take() as number; count > 0; count -= 1) {
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

/** A view of a large buffer would be copied with all of that buffer. */
function owned(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
}

function ownedValue(value: SqlValue): SqlValue {
  return value instanceof Uint8Array ? owned(value) : value;
}
