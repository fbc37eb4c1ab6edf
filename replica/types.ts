/**
 * The replica's shared nouns, and the two ports behind which the outside world sits: `Transport`
 * (QUIC in production, a simulated network in tests) and `ChangeStore` (cr-sqlite in a worker
 * thread, a model in tests).
 */
import type { PatinaError } from "#base/errors.ts";

/** A replica's identity on the wire: a lower-case hyphenated UUID; equal to its cr-sqlite site id. */
export type ActorId = string;

/** A UDP or TCP address in canonical text: `192.0.2.1:8787` or `[2001:db8::1]:8787`. */
export type Address = string;

/** A SQLite value: `bigint` is INTEGER, `number` is REAL (also when whole). */
export type SqlValue = null | bigint | number | string | Uint8Array;

/** Versions of one actor, both ends included. */
export interface VersionRange {
  readonly start: number;
  readonly end: number;
}

/** Positions inside one version, both ends included, from 0. */
export interface SeqRange {
  readonly start: number;
  readonly end: number;
}

/**
 * One changed column of one row. `cid` is the column name, or `"-1"` for the row's sentinel
 * (create, delete). `cl` is the causal length: odd = the row lives, even = it is deleted.
 */
export interface ColumnChange {
  readonly table: string;
  /** Primary key packed as `crsql_pack_columns` does (protocol reference, section 3.4). */
  readonly pk: Uint8Array;
  readonly cid: string;
  readonly val: SqlValue;
  readonly colVersion: number;
  readonly seq: number;
  readonly cl: number;
}

/** All changes of one version, or of a seq range of it. Complete when `seqs` is 0..=`lastSeq`. */
export interface FullChangeset {
  readonly kind: "full";
  readonly actorId: ActorId;
  readonly version: number;
  readonly changes: readonly ColumnChange[];
  /** May cover seqs without a row: judge completeness by seqs, never by the number of rows. */
  readonly seqs: SeqRange;
  readonly lastSeq: number;
  /** NTP64 stamp of the origin's clock. */
  readonly ts: bigint;
}

/** Versions of which nothing is left: recorded as known, nothing to apply. */
export interface EmptyChangeset {
  readonly kind: "empty";
  readonly actorId: ActorId;
  readonly versions: VersionRange;
  readonly ts: bigint | null;
}

/** What one actor committed, as it travels between replicas. `actorId` is the origin. */
export type Changeset = FullChangeset | EmptyChangeset;

/** One actor's bookkeeping: which of its versions this replica knows. */
export interface ActorBook {
  /** Head: greatest version known of; 0 = none. */
  readonly head: number;
  /** Gaps: missing versions at or below `head`, ascending, not adjacent. */
  readonly gaps: readonly VersionRange[];
  /** Partials: versions of which only some seqs are buffered. */
  readonly partials: ReadonlyMap<number, PartialVersion>;
}

/** A version that has arrived in part. */
export interface PartialVersion {
  /** Received seqs, ascending, not adjacent. */
  readonly seqs: readonly SeqRange[];
  /** The first `lastSeq` learnt; later differing ones do not change it. */
  readonly lastSeq: number;
  readonly ts: bigint;
}

/** One row of a change stream batch: the row as it is after the batch, or `null` when deleted. */
export interface RowChange {
  readonly table: string;
  /** Decoded primary key values in key order. */
  readonly key: readonly SqlValue[];
  /** Column name to value; `null` = the row is gone. */
  readonly row: Readonly<Record<string, SqlValue>> | null;
  /** Origin and version of the transaction that changed it. */
  readonly actorId: ActorId;
  readonly version: number;
}

/**
 * A position in one database's change stream. Comparable only where `databaseId` is equal.
 * `dbVersion` is cr-sqlite's local db_version.
 */
export interface Watermark {
  readonly databaseId: string;
  readonly dbVersion: number;
}

/**
 * What a reader of the change stream sees. After `reset` the reader drops all it holds; `rows`
 * follow (first of all rows, ending with `caughtUp`), then live ones. A batch never splits a version.
 */
export type ChangeStreamEvent =
  | { readonly kind: "reset"; readonly reason: string }
  | { readonly kind: "rows"; readonly rows: readonly RowChange[]; readonly watermark: Watermark }
  | { readonly kind: "caughtUp"; readonly watermark: Watermark };

// ---------------------------------------------------------------- Transport port

/** A bidirectional stream; frames are payloads without their 4-byte length prefix. */
export interface BiStream {
  /** The remote UDP address of the connection (for an inbound one, not the peer's gossip address). */
  readonly remote: Address;
  /** Whom the peer's certificate names; null or absent = certificates do not tell. */
  readonly peerActorId?: ActorId | null;
  /** Queues one frame. Resolves when the stream's buffer has room for more. Rejects when broken. */
  send(frame: Uint8Array): Promise<void>;
  /** Ends our direction with FIN, after what was sent. */
  finish(): void;
  /** Gives up both directions (RESET_STREAM and STOP_SENDING with code 0). Idempotent. */
  abort(): void;
  /**
   * Called for each whole frame in order; `null` = FIN of the peer's direction. Set exactly once.
   * Back-pressure: while a returned promise is pending, no frame follows and the peer is made to wait.
   */
  onFrame(listener: (frame: Uint8Array | null) => void | Promise<void>): void;
  /** Called once when the stream or its connection breaks before both FINs. */
  onBroken(listener: (error: PatinaError) => void): void;
}

/** What a transport tells its owner. Never called from inside a call of the transport's methods. */
export interface TransportEvents {
  /**
   * One SWIM packet. `remote` is the sender's UDP source, not its gossip address; `actorId` whom its
   * certificate names, null or absent = certificates do not tell.
   */
  datagram(bytes: Uint8Array, remote: Address, actorId?: ActorId | null): void;
  /** All frames of one unidirectional stream, after its FIN. */
  uniFrames(frames: readonly Uint8Array[], remote: Address): void;
  /** A peer opened a bidirectional stream. */
  biStream(stream: BiStream): void;
  /** A new minimum round-trip time of the outgoing connection to `target`. */
  rtt(target: Address, rttMs: number): void;
  /** The outgoing connection to `target` came up, or was lost (or could not be made). */
  connection(target: Address, state: "up" | "down", reason: string): void;
}

/**
 * Carries packets between replicas. Everything that is sent goes over a connection that the sender
 * dialled: one cached connection per address (protocol reference, section 1.4).
 */
export interface Transport {
  /** The bound UDP address. */
  readonly local: Address;
  /** Sends one datagram, dialling if need be. Fire and forget; too large or no connection = counted. */
  sendDatagram(target: Address, bytes: Uint8Array): void;
  /**
   * Sends frames on one unidirectional stream ending with FIN. Resolves to whether everything was
   * handed to the connection within the timeout (5 s); never rejects. Urgent sends overtake others
   * that are queued for the same target.
   */
  sendUni(
    target: Address,
    frames: readonly Uint8Array[],
    options?: { readonly urgent?: boolean },
  ): Promise<boolean>;
  /** Opens a bidirectional stream. Rejects with `TRANSPORT_CONNECT` when the peer cannot be dialled. */
  openBi(target: Address): Promise<BiStream>;
  /** Closes the cached outgoing connection to `target`, so that the next send dials anew. */
  forget(target: Address, reason: string): void;
  /** Closes every connection with application code 0 and the socket. */
  close(): Promise<void>;
}

// ---------------------------------------------------------------- ChangeStore port

/** What became of one changeset handed to `apply`, in the order given. */
export type ApplyOutcome =
  /** The version is complete and recorded (also when every change lost its merge). */
  | { readonly kind: "applied"; readonly changeset: Changeset; readonly rowsChanged: number }
  /** Rows buffered; the version is still partial. */
  | { readonly kind: "buffered"; readonly changeset: FullChangeset }
  /** Already known: nothing done. */
  | { readonly kind: "known"; readonly changeset: Changeset }
  /** Refused (bad key, a value that no column takes): nothing recorded; still needed. */
  | { readonly kind: "refused"; readonly changeset: Changeset; readonly reason: string };

/** One local transaction that changed something. */
export interface LocalCommit {
  readonly version: number;
  readonly lastSeq: number;
  readonly ts: bigint;
  /** Chunked for the wire: each at most 8 KiB as estimated (protocol reference, section 3.5). */
  readonly changesets: readonly FullChangeset[];
}

/** One SQL statement with its parameters. */
export interface Statement {
  readonly sql: string;
  readonly params?: readonly SqlValue[] | Readonly<Record<string, SqlValue>>;
}

/** Answer to a transaction; `commit` is null when nothing changed (no version is used). */
export interface TransactionAnswer {
  readonly results: readonly { readonly rowsAffected: number; readonly timeMs: number }[];
  readonly timeMs: number;
  readonly commit: LocalCommit | null;
}

/** State of changes: every SQLite write goes through it. All calls may be answered later. */
export interface ChangeStore {
  readonly actorId: ActorId;
  readonly databaseId: string;
  /** Bookkeeping as stored at start. */
  readonly books: ReadonlyMap<ActorId, ActorBook>;
  /** Rejects with `STORE_SQL` (bad statement; nothing changed) or `STORE_BUSY`. */
  transact(statements: readonly Statement[], ts: bigint): Promise<TransactionAnswer>;
  /** Applies in order, bookkeeping in the same transaction as the rows. Never rejects for bad data. */
  apply(changesets: readonly Changeset[]): Promise<readonly ApplyOutcome[]>;
  /**
   * Reads versions for a sync answer, newest first, cut into chunks of about `chunkBytes`: what is
   * stored, what is only buffered, and `empty` for versions that are known but have no rows left.
   * Versions in our gaps or above our head are left out.
   */
  readVersions(request: ReadVersionsRequest): Promise<readonly Changeset[]>;
}

/** One actor's versions or the missing seqs of one partial version. */
export interface ReadVersionsRequest {
  readonly actorId: ActorId;
  readonly need: SyncNeed;
  readonly chunkBytes: number;
}

/** What a sync client asks of one actor's history (protocol reference, section 4.1). */
export type SyncNeed =
  | { readonly kind: "full"; readonly versions: VersionRange }
  | { readonly kind: "partial"; readonly version: number; readonly seqs: readonly SeqRange[] };
