/**
 * What the HTTP API needs from the replica behind it.
 */
import type { ActorId, SqlValue, Statement, TransactionAnswer } from "../../types.ts";
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

/** The replica as the API sees it. Every call may reject with a `PatinaError` of the store. */
export interface ApiBackend {
  readonly actorId: ActorId;
  transact(statements: readonly Statement[]): Promise<TransactionAnswer>;
  /** Ends with `STORE_TIMEOUT` after `timeoutMs`; 0 = no limit. */
  query(statement: Statement, timeoutMs: number): Promise<QueryAnswer>;
  put<Kind extends ObjectKind>(kind: Kind, document: DocumentByKind[Kind]): Promise<ObjectAnswer>;
  remove(kind: ObjectKind, id: string): Promise<ObjectAnswer>;
  get(kind: ObjectKind, id: string): Promise<StoredObject | null>;
  list(kind: ObjectKind, request: ListRequest): Promise<readonly StoredObject[]>;
  /** State for `GET /v1/status`: members, heads, needs; plain JSON. */
  status(): unknown;
}
