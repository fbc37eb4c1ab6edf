/**
 * What the HTTP API needs from the replica behind it.
 */
import type { ActorId, SqlValue, Statement, TransactionAnswer } from "../../types.ts";
import type { StreamTarget } from "../subscriptions/subscription-messages.ts";
import type { LineStream } from "../subscriptions/subscription-lane.ts";
import type { DocumentByKind, ListRequest, ObjectKind, StoredObject } from "../store/objects.ts";

/** Answer to a put or delete: the version it made, or null when nothing changed. */
export interface ObjectAnswer {
  readonly version: number | null;
  /** Whether the object was there (delete). */
  readonly existed: boolean;
}

/**
 * A query's answer: columns first, then pages of rows, read when asked for. Iterating may throw a
 * code of the store or of queries. End it with `return` (leaving a `for await` does); that also
 * settles a `next` that waits.
 */
export interface QueryAnswer {
  readonly columns: readonly string[];
  readonly pages: AsyncIterableIterator<readonly (readonly SqlValue[])[]>;
}

/** How the replica does, for `GET /v1/health`. */
export interface Health {
  /** Versions that are known of and missing. */
  readonly gaps: number;
  /** Other replicas that are alive. */
  readonly members: number;
  /** From a commit elsewhere to its being applied here; null = nothing has come in yet. */
  readonly p99LagSeconds: number | null;
  /** Changesets that wait to be applied. */
  readonly queueSize: number;
}

/** The replica as the API sees it. Every call may reject with a `PatinaError` of the store. */
export interface ApiBackend {
  readonly actorId: ActorId;
  /** All or nothing, within `timeoutMs`, else `STORE_TIMEOUT`; 0 = no limit. */
  transact(statements: readonly Statement[], timeoutMs: number): Promise<TransactionAnswer>;
  /** Ends with `STORE_TIMEOUT` after `timeoutMs`; 0 = no limit. */
  query(statement: Statement, timeoutMs: number): Promise<QueryAnswer>;
  put<Kind extends ObjectKind>(kind: Kind, document: DocumentByKind[Kind]): Promise<ObjectAnswer>;
  remove(kind: ObjectKind, id: string): Promise<ObjectAnswer>;
  get(kind: ObjectKind, id: string): Promise<StoredObject | null>;
  list(kind: ObjectKind, request: ListRequest): Promise<readonly StoredObject[]>;
  /** A stream of lines; rejects with codes of subscriptions, too. See `SubscriptionThread.open`. */
  stream(target: StreamTarget): Promise<LineStream>;
  health(): Health;
  /** State for `GET /v1/status`: members, heads, needs; plain JSON. */
  status(): unknown;
}
