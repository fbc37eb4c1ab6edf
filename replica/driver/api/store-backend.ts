/**
 * The API's backend in production: writes and objects go to the store, queries to the query
 * threads, and every commit is told to the replica before its writer has an answer.
 */
import type { ActorId, LocalCommit, Statement } from "../../types.ts";
import { queryError } from "../query/errors.ts";
import {
  bindParameters,
  parameterNames,
  type BoundParameters,
  type ParameterNames,
} from "../query/parameters.ts";
import type { QueryThread } from "../query/query-thread.ts";
import { storeError } from "../store/errors.ts";
import { firstKeyword, tokenize } from "../store/sql-text.ts";
import type { StoreClient } from "../store/store-client.ts";
import type { SubscriptionThread } from "../subscriptions/subscription-thread.ts";
import type { ApiBackend, Health } from "./api-types.ts";

/** What the backend stands on. */
export interface StoreBackendOptions {
  readonly store: Pick<
    StoreClient,
    "actorId" | "transact" | "putObject" | "deleteObject" | "getObject" | "listObjects"
  >;
  readonly queries: Pick<QueryThread, "query">;
  readonly streams: Pick<SubscriptionThread, "open">;
  readonly health: () => Health;
  /** Takes each commit in the order of versions as answered; must not throw. */
  readonly onCommit: (commit: LocalCommit) => void;
  /** A fresh NTP64 stamp of the replica's hybrid logical clock. */
  readonly stamp: () => bigint;
  /** State for `GET /v1/status`; plain JSON. */
  readonly status: () => unknown;
}

/** Makes the backend. */
export function createStoreBackend(options: StoreBackendOptions): ApiBackend {
  const { store, queries, stamp } = options;
  const actorId: ActorId = store.actorId;
  const texts = new SqlTexts();
  const told = (commit: LocalCommit | null): number | null => {
    if (commit !== null) options.onCommit(commit);
    return commit?.version ?? null;
  };
  return {
    actorId,
    transact: async (statements, timeoutMs) => {
      const stored = statements.map((statement, index) => {
        const place = `statement ${index + 1}`;
        return toStoreStatement(statement, { index, place, text: texts.read(statement.sql) });
      });
      const answer = await store.transact(stored, stamp(), timeoutMs);
      told(answer.commit);
      return answer;
    },
    query: (statement, timeoutMs) => queries.query(statement, timeoutMs),
    stream: (target) => options.streams.open(target),
    health: options.health,
    put: async (kind, document) => {
      const version = told(await store.putObject(kind, document, stamp()));
      return { version, existed: true };
    },
    remove: async (kind, id) => {
      const { commit, existed } = await store.deleteObject(kind, id, stamp());
      return { version: told(commit), existed };
    },
    get: (kind, id) => store.getObject(kind, id),
    list: (kind, request) => store.listObjects(kind, request),
    status: () => options.status(),
  };
}

/** What is to be known of a SQL text before it goes to the store. */
interface SqlText {
  readonly isReading: boolean;
  readonly parameters: ParameterNames;
}

/** Reads SQL texts; writers send the same few again and again, in bulk by the thousand. */
class SqlTexts {
  readonly #known = new Map<string, SqlText>();

  read(sql: string): SqlText {
    const known = this.#known.get(sql);
    if (known !== undefined) return known;
    const isReading = READING.has(firstKeyword(tokenize(sql)));
    const text: SqlText = { isReading, parameters: parameterNames(sql) };
    if (sql.length > TEXT_LENGTH_MAX) return text;
    if (this.#known.size >= TEXTS_MAX) this.#known.clear();
    this.#known.set(sql, text);
    return text;
  }
}

/**
 * A statement as the store binds it: a list for `?`, else names without sigil. Throws `STORE_SQL`
 * for a SELECT, whose rows nobody would see, and `QUERY_PARAMETERS`, before anything is run.
 */
function toStoreStatement(
  statement: Statement,
  known: { readonly index: number; readonly place: string; readonly text: SqlText },
): Statement {
  const { index, place, text } = known;
  if (text.isReading) {
    const reason = "Execute returned results - did you mean to call query?";
    throw storeError("STORE_SQL", `${place}: ${reason}`, { details: { index } });
  }
  const bound = bindParameters(statement, text.parameters);
  if (!bound.ok) throw queryError("QUERY_PARAMETERS", `${place}: ${bound.error}`);
  const params = toStoreParams(bound.value);
  if (params === null) {
    throw queryError("QUERY_PARAMETERS", `${place}: both ? and named parameters: use one kind`);
  }
  return { sql: statement.sql, params };
}

function toStoreParams(bound: BoundParameters): NonNullable<Statement["params"]> | null {
  const { positional, named } = bound;
  if (named === null) return positional;
  return positional.length === 0 ? named : null;
}

const READING: ReadonlySet<string> = new Set(["SELECT", "VALUES"]);
/** As many as the store keeps prepared. */
const TEXTS_MAX = 256;
/** Longer ones are rarely sent twice: literals stand in them. */
const TEXT_LENGTH_MAX = 4_096;
