/**
 * Read-only queries in threads of their own: they never hold up the replica's thread or the store.
 *
 * One thread serves all queries page by page. While it has been silent for some time, because
 * SQLite takes long to find a row, further queries go to another thread, up to `THREADS_MAX`. A
 * query that is past its time is interrupted. One that SQLite does not interrupt, because a single
 * function call (instr on long texts) takes so long, costs its thread: the other queries of it fail
 * with `QUERY_LOST`.
 *
 * A thread that is given up ends only when SQLite returns. Until then it burns its core, counts
 * against `THREADS_MAX`, and holds up an orderly exit of the process (`process.exit` waits for it),
 * which therefore must be able to kill itself.
 */
import { queryError } from "./errors.ts";
import { QueryLane } from "./query-lane.ts";
import { RunningQuery, type QueryPage } from "./running-query.ts";
import { storeError } from "../store/errors.ts";
import type { Statement } from "../../types.ts";

/** Where to read and within which limits. */
export interface QueryThreadOptions {
  /** The store's database file; it exists. */
  readonly databasePath: string;
  /** The cr-sqlite extension, loaded only for statements that name `crsql_changes` and its like. */
  readonly extensionPath: string;
  /** The extension for SQL deadlines. */
  readonly deadlinePath: string;
  /** A query whose rows are not taken for so long is given up. Default 30 s. */
  readonly idleMs?: number;
  /** Time of a query that asks for none (0), and the most that any gets. Default 10 min. */
  readonly timeoutMaxMs?: number;
  /** How long after its deadline a query's thread is given up. Default 1 s. */
  readonly marginMs?: number;
  /** Silence after which a thread gets no further queries. Default 100 ms. */
  readonly silenceMs?: number;
}

/** A query's answer: columns first, then pages when they are asked for; see `ApiBackend.query`. */
export interface QueryResult {
  readonly columns: readonly string[];
  readonly pages: AsyncIterableIterator<QueryPage>;
}

/** Counters and gauges of queries. */
export interface QueryStats {
  readonly open: number;
  readonly threads: number;
  /** Threads given up that have not ended. */
  readonly stuckThreads: number;
  readonly started: number;
  /** Ended because their time was up. */
  readonly timeouts: number;
  /** Threads given up since the start. */
  readonly abandoned: number;
}

/** Runs queries on one database. */
export class QueryThread {
  readonly #options: Required<QueryThreadOptions>;
  readonly #lanes = new Set<QueryLane>();
  #stuck = 0;
  #open = 0;
  #started = 0;
  #timeouts = 0;
  #abandoned = 0;
  #nextId = 1;
  #isClosed = false;

  private constructor(options: QueryThreadOptions) {
    this.#options = {
      idleMs: IDLE_MS,
      timeoutMaxMs: TIMEOUT_MAX_MS,
      marginMs: MARGIN_MS,
      silenceMs: SILENCE_MS,
      ...options,
    };
  }

  /**
   * Runs queries without a thread until the first one comes: it waits for its thread to start, and
   * fails with `QUERY_LOST` when the database cannot be opened.
   */
  static create(options: QueryThreadOptions): QueryThread {
    return new QueryThread(options);
  }

  /** Opens the database in a first thread. Rejects with a code of the store when it cannot. */
  static async start(options: QueryThreadOptions): Promise<QueryThread> {
    const thread = new QueryThread(options);
    await thread.#startLane().ready;
    return thread;
  }

  /** Counters and gauges. */
  get stats(): QueryStats {
    return {
      open: this.#open,
      threads: this.#lanes.size,
      stuckThreads: this.#stuck,
      started: this.#started,
      timeouts: this.#timeouts,
      abandoned: this.#abandoned,
    };
  }

  /**
   * Starts a query. `timeoutMs` counts to the last row, the client's own time included; 0 = as long
   * as is allowed. Rejects with `STORE_SQL`, `QUERY_PARAMETERS` or `QUERY_EMPTY` (the statement is
   * wrong) or `QUERY_BUSY`; starting and iterating also with `STORE_TIMEOUT`, `QUERY_SLOW_CLIENT`,
   * `QUERY_LOST`, and iterating with `STORE_SQL` when a row cannot be computed.
   */
  async query(statement: Statement, timeoutMs: number): Promise<QueryResult> {
    if (this.#isClosed) throw storeError("STORE_CLOSED", "the store is closed");
    if (this.#open >= OPEN_MAX) throw queryError("QUERY_BUSY", `${OPEN_MAX} queries are running`);
    const lane = this.#pickLane();
    const { timeoutMaxMs, marginMs } = this.#options;
    const limitMs = Math.min(timeoutMs === 0 ? timeoutMaxMs : timeoutMs, timeoutMaxMs);
    const id = this.#nextId++;
    this.#open += 1;
    this.#started += 1;
    const query = new RunningQuery({
      id,
      lane,
      timeoutMs: limitMs,
      marginMs,
      onStuck: () => this.#abandon(lane, `another query did not come back in ${limitMs} ms`),
      onEnd: (error) => {
        this.#open -= 1;
        if (error?.code === "STORE_TIMEOUT") this.#timeouts += 1;
        this.#retireIfIdle(lane);
      },
    });
    const started = query.started();
    lane.open({ kind: "open", id, statement, timeoutMs: limitMs }, query);
    return { columns: await started, pages: query };
  }

  /** Fails what runs and ends the threads; does not wait for one that is stuck in SQLite. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const lanes = [...this.#lanes];
    for (const lane of lanes) this.#abandon(lane, "the store is closed");
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_LIMIT_MS);
    });
    await Promise.race([Promise.all(lanes.map((lane) => lane.exited)), limit]);
    clearTimeout(timer);
  }

  #pickLane(): QueryLane {
    const nowMs = performance.now();
    const lanes = [...this.#lanes].filter((lane) => !lane.isOver);
    const ready = lanes.filter((lane) => lane.silenceMs(nowMs) < this.#options.silenceMs);
    const best = leastLoaded(ready);
    if (best !== null) return best;
    if (this.#lanes.size + this.#stuck < THREADS_MAX) return this.#startLane();
    const any = leastLoaded(lanes);
    if (any !== null) return any;
    throw queryError("QUERY_BUSY", `${this.#stuck} queries do not come back`);
  }

  #startLane(): QueryLane {
    const { databasePath, extensionPath, deadlinePath, idleMs } = this.#options;
    const lane = new QueryLane({ databasePath, extensionPath, deadlinePath, idleMs });
    this.#lanes.add(lane);
    void lane.exited.then(() => this.#lanes.delete(lane));
    return lane;
  }

  #abandon(lane: QueryLane, reason: string): void {
    if (!this.#lanes.delete(lane)) return;
    this.#abandoned += 1;
    this.#stuck += 1;
    void lane.exited.then(() => (this.#stuck -= 1));
    lane.abandon(reason);
  }

  /** Threads beyond the first are for busy times. */
  #retireIfIdle(lane: QueryLane): void {
    if (this.#lanes.size > 1 && lane.size === 0 && lane.steppingId === 0 && !lane.isOver) {
      this.#lanes.delete(lane);
      lane.abandon("idle");
    }
  }
}

function leastLoaded(lanes: readonly QueryLane[]): QueryLane | null {
  let best: QueryLane | null = null;
  for (const lane of lanes) if (best === null || lane.size < best.size) best = lane;
  return best;
}

/** Queries open at once; the API sheds before. */
const OPEN_MAX = 256;
/** Threads, those included that were given up. */
const THREADS_MAX = 4;
const IDLE_MS = 30_000;
/** An open query keeps the log from being cut; at 1 MB/s of changes that makes 600 MB. */
const TIMEOUT_MAX_MS = 600_000;
const MARGIN_MS = 1_000;
/** Long beside a page (5 ms), short beside what a human notices. */
const SILENCE_MS = 100;
const CLOSE_LIMIT_MS = 2_000;
