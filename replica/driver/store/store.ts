/**
 * The store inside its thread: one open database and everything that reads and writes it, without
 * threads or messages. The worker calls it; tests may call it directly.
 */
import type Database from "better-sqlite3";
import type { PublisherStats } from "../../core/change-stream/stream-publisher.ts";
import { actorIdFromBytes } from "../../core/wire/actor-id.ts";
import type { ActorBook, ActorId, LocalCommit, Statement, TransactionAnswer } from "../../types.ts";
import type { ApplyJob, ApplyStats } from "./apply.ts";
import { Applier } from "./apply.ts";
import type { BookRepair, BooksReport, RowSlice, RowsReport } from "./books-check.ts";
import { checkBooks, checkRows, repairBooks } from "./books-check.ts";
import { ChangePublisher } from "./change-publisher.ts";
import type { CheckpointStats } from "./checkpoint-pace.ts";
import { CheckpointPace } from "./checkpoint-pace.ts";
import { FreePages } from "./free-pages.ts";
import { readCrrTables } from "./crr-tables.ts";
import { renewTriggers } from "./crr-triggers.ts";
import type { DatabaseOptions, OpenDatabase } from "./database.ts";
import { assertRoom, openDatabase } from "./database.ts";
import { toStoreError } from "./errors.ts";
import type { KeptAsideLimits, KeptAsideStats } from "./kept-aside.ts";
import { KeptAside } from "./kept-aside.ts";
import { Ledger, actorBytes } from "./ledger.ts";
import { LogSync } from "./log-sync.ts";
import { LocalWriter } from "./local-write.ts";
import type { DocumentByKind, ObjectKind } from "./objects.ts";
import { ObjectStore } from "./objects.ts";
import { requestRenewal } from "./renew-identity.ts";
import { RowReader } from "./row-reader.ts";
import type { RenewTriggers, SchemaChange } from "./schema-apply.ts";
import { applySchema, NO_CHANGE } from "./schema-apply.ts";
import type { SchemaFile } from "./schema-files.ts";
import { readSchema } from "./schema-files.ts";
import { VersionServer } from "./serve-versions.ts";
import type { MemberRecord } from "./store-messages.ts";
import { VersionRowReader } from "./version-rows.ts";

/** What a store is made of. */
export interface StoreOptions extends DatabaseOptions {
  /** Name of the node this replica runs on: owner of the objects it writes. */
  readonly nodeId: string;
  readonly schemaFiles: readonly SchemaFile[];
  /** False: every change is merged by cr-sqlite, which takes twice as long. Default true. */
  readonly writesRowsDirectly?: boolean;
  /** How a table's triggers are made anew. Default: by themselves; `crr-triggers.ts` says why. */
  readonly renewTriggers?: RenewTriggers;
  /** Room for changes that the schema does not know yet. */
  readonly keptLimits?: KeptAsideLimits;
}

/** Clocks, so that tests may bring their own. */
export interface StoreClocks {
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
  /** Unix milliseconds. */
  readonly wallMs: () => number;
}

/** A failure of the disk or the file that concerns every write. */
export interface StoreFault {
  readonly code: string;
  readonly message: string;
}

/** Counters and gauges of a store. */
export interface StoreStats {
  readonly apply: ApplyStats;
  readonly stream: PublisherStats;
  readonly checkpoints: CheckpointStats;
  readonly kept: KeptAsideStats;
  readonly streamReaders: number;
  /** Requests waiting in the worker. */
  readonly queued: number;
  readonly dbVersion: number;
  /** Why nothing can be kept; null = nothing is known against it. */
  readonly fault: StoreFault | null;
  /** Transactions undone because their time was up. */
  readonly timeouts: number;
  /** Times that an answer waited for the disk. */
  readonly logSyncs: number;
  /** Pages of the file that are free. */
  readonly freePages: number;
}

/** What became of a change of the schema. */
export interface SchemaAnswer {
  readonly change: SchemaChange;
  readonly commit: LocalCommit | null;
  /** Rows changed by what had been kept aside. */
  readonly keptMerged: number;
  /** What counts now, where versions are missing again; null = as before. */
  readonly books: ReadonlyMap<ActorId, ActorBook> | null;
}

/** What depends on the tables; made anew after a change of the schema. */
interface Parts {
  readonly writer: LocalWriter;
  readonly applier: Applier;
  readonly server: VersionServer;
  readonly objects: ObjectStore;
}

/** One database with its owner. */
export class Store {
  readonly actorId: ActorId;
  readonly databaseId: string;
  readonly nodeId: string;
  readonly ledger: Ledger;
  readonly #kept: KeptAside;
  readonly #renewTriggers: RenewTriggers;
  readonly publisher: ChangePublisher;
  readonly #open: OpenDatabase;
  readonly #database: Database.Database;
  readonly #clocks: StoreClocks;
  readonly #checkpoints: CheckpointPace;
  readonly #freePages: FreePages;
  readonly #log: LogSync;
  readonly #writesRowsDirectly: boolean;
  readonly #applyStats: ApplyStats[] = [];
  #timeouts = 0;
  #fault: StoreFault | null = null;
  #parts: Parts;

  /** Opens or creates the database and brings its schema up to date. */
  constructor(options: StoreOptions, clocks: StoreClocks) {
    this.#open = openDatabase(options);
    this.#database = this.#open.database;
    this.#clocks = clocks;
    this.#checkpoints = new CheckpointPace(this.#database, options.path);
    this.#freePages = new FreePages(this.#database);
    this.#log = new LogSync(options.path, { isOff: options.synchronous === "full" });
    this.actorId = this.#open.actorId;
    this.databaseId = this.#open.databaseId;
    this.nodeId = options.nodeId;
    this.#writesRowsDirectly = options.writesRowsDirectly ?? true;
    try {
      this.#renewTriggers =
        options.renewTriggers ??
        ((database, table) => renewTriggers(database, table, options.extensionPath));
      this.ledger = new Ledger(this.#database, this.actorId);
      this.#kept = new KeptAside(this.#database, options.keptLimits);
      this.ledger.isInDoubt = this.#open.run.isInDoubt;
      this.#parts = this.#createParts();
      this.publisher = new ChangePublisher(this.#publisherSource());
      this.applySchema(options.schemaFiles, 0n);
    } catch (thrown) {
      this.#checkpoints.close();
      this.#freePages.close();
      this.#log.close();
      this.#open.close();
      throw toStoreError(thrown, "STORE_CORRUPT");
    }
  }

  /**
   * Brings the schema up to date; rows of an adopted table become a version of ours. What was kept
   * aside for a table or column that is there now is merged; versions that were cut short are missing
   * again, and `books` is what counts then.
   */
  applySchema(files: readonly SchemaFile[], ts: bigint): SchemaAnswer {
    const schema = readSchema(files);
    let change = NO_CHANGE;
    this.#database.prepare("BEGIN IMMEDIATE").run();
    this.ledger.begin();
    try {
      const raise = this.#database.prepare("SELECT crsql_next_db_version(?)").pluck();
      // It may be higher than asked: cr-sqlite counts transactions that wrote nothing.
      const local = Number(raise.get(BigInt(this.ledger.lastLocal + 1)));
      change = applySchema(this.#database, schema, this.#renewTriggers);
      const parts = this.#createParts();
      const commit = parts.writer.record(local, ts);
      const isReopened = hasChanged(change) && this.#reopenCut();
      this.ledger.save();
      this.#database.prepare("COMMIT").run();
      this.#parts.writer.close();
      this.#parts = parts;
      if (commit !== null) this.#log.committed();
      const keptMerged = parts.applier.applyKept();
      if (hasChanged(change)) this.publisher.replaceSource(this.#publisherSource());
      else if (keptMerged > 0) this.publisher.committed();
      const books = isReopened ? this.ledger.books.snapshot() : null;
      return { change, commit, keptMerged, books };
    } catch (thrown) {
      if (this.#database.inTransaction) this.#database.prepare("ROLLBACK").run();
      this.ledger.undo();
      throw toStoreError(thrown, "STORE_SCHEMA");
    }
  }

  /** See `LocalWriter.transact`. */
  transact(statements: readonly Statement[], ts: bigint, timeoutMs = 0): TransactionAnswer {
    try {
      const answer = this.#parts.writer.transact(statements, ts, timeoutMs);
      if (answer.commit !== null) this.#committedOwn(answer.commit);
      return answer;
    } catch (thrown) {
      if (toStoreError(thrown, "STORE_SQL").code === "STORE_TIMEOUT") this.#timeouts += 1;
      throw thrown;
    }
  }

  /** See `Applier.applySlice`. */
  applySlice(job: ApplyJob, budgetMs: number): void {
    const before = this.ledger.lastLocal;
    const { stats } = this.#parts.applier;
    const rowsBefore = stats.rowsChanged;
    this.#parts.applier.applySlice(job, budgetMs);
    if (this.ledger.lastLocal !== before) this.#committed(stats.rowsChanged - rowsBefore);
  }

  /** See `VersionServer.read`. */
  get server(): VersionServer {
    return this.#parts.server;
  }

  /** See `LogSync.whenSynced`: what a peer is told of versions waits for it. */
  whenDurable(done: (error: Error | null) => void): void {
    this.#log.whenSynced(done);
  }

  /** The connection itself; tests look at tables through it. */
  get databaseForTests(): Database.Database {
    return this.#database;
  }

  /** Objects, for reading. */
  get objects(): ObjectStore {
    return this.#parts.objects;
  }

  /** Writes an object as one version of ours; null when nothing differed. */
  putObject<Kind extends ObjectKind>(
    kind: Kind,
    document: DocumentByKind[Kind],
    ts: bigint,
  ): LocalCommit | null {
    const writer = { nodeId: this.nodeId, nowMs: this.#clocks.wallMs() };
    return this.#write(ts, () => this.#parts.objects.put(kind, document, writer));
  }

  /** Deletes an object as one version of ours. */
  deleteObject(
    kind: ObjectKind,
    id: string,
    ts: bigint,
  ): { commit: LocalCommit | null; existed: boolean } {
    const writer = { nodeId: this.nodeId, nowMs: this.#clocks.wallMs() };
    let existed = false;
    const commit = this.#write(ts, () => {
      existed = this.#parts.objects.delete(kind, id, writer);
    });
    return { commit, existed };
  }

  /** Replaces the kept members. */
  saveMembers(members: readonly MemberRecord[]): void {
    const insert = this.#database.prepare(
      "INSERT INTO __corro_members (actor_id, address, foca_state, rtt_min, updated_at)" +
        " VALUES (?, ?, ?, ?, ?)",
    );
    this.#database.transaction(() => {
      this.#database.exec("DELETE FROM __corro_members");
      for (const { actorId, address, state, rttMinMs, updatedAtMs } of members) {
        const rtt = rttMinMs === null ? null : BigInt(Math.round(rttMinMs));
        insert.run(actorBytes(actorId), address, state, rtt, BigInt(updatedAtMs));
      }
    })();
  }

  /** The kept members. */
  loadMembers(): MemberRecord[] {
    const rows = this.#database
      .prepare<[], MemberRow>(
        "SELECT actor_id, address, foca_state, rtt_min, updated_at FROM __corro_members",
      )
      .all();
    return rows.map((row) => ({
      actorId: actorIdFromBytes(row.actor_id),
      address: row.address,
      state: row.foca_state,
      rttMinMs: row.rtt_min === null ? null : Number(row.rtt_min),
      updatedAtMs: Number(row.updated_at),
    }));
  }

  /** The cluster id kept by `saveClusterId`, or null. */
  get clusterId(): number | null {
    const statement = this.#database.prepare<[], bigint>(
      "SELECT value FROM __patina_state WHERE key = 'cluster_id'",
    );
    const value = statement.pluck().get();
    return value === undefined ? null : Number(value);
  }

  /** Keeps the cluster id over a restart. */
  saveClusterId(clusterId: number): void {
    this.#database
      .prepare("INSERT OR REPLACE INTO __patina_state (key, value) VALUES ('cluster_id', ?)")
      .run(BigInt(clusterId));
  }

  /**
   * Versions of our own may be gone that others have: writes reject with `STORE_BUSY` until
   * `settleOwnVersions`, and our own versions are taken from others.
   */
  get isInDoubt(): boolean {
    return this.ledger.isInDoubt;
  }

  /** Others were asked: goes on above `head`, the greatest version of ours that they know of. */
  settleOwnVersions(head: number): void {
    const { ledger } = this;
    this.#database.prepare("BEGIN IMMEDIATE").run();
    ledger.begin();
    try {
      ledger.books.recordHead(ledger.actorId, head);
      ledger.save();
      this.#open.run.settle();
      this.#database.prepare("COMMIT").run();
    } catch (thrown) {
      if (this.#database.inTransaction) this.#database.prepare("ROLLBACK").run();
      ledger.undo();
      throw toStoreError(thrown, "STORE_BUSY");
    }
    ledger.isInDoubt = false;
  }

  /** Nobody can be asked: the next start takes a new actor id; see `renew-identity.ts`. */
  requestNewIdentity(): void {
    requestRenewal(this.#database);
  }

  /** See `checkBooks` of `books-check.ts`. */
  checkBooks(): BooksReport {
    return checkBooks(this.#booksContext());
  }

  /** See `checkRows` of `books-check.ts`. */
  checkRows(slice: RowSlice): RowsReport {
    return checkRows(this.#booksContext(), slice);
  }

  /** Mends the books, on disk and in memory; see `repairBooks` of `books-check.ts`. */
  repairBooks(): { repairs: BookRepair[]; books: ReadonlyMap<ActorId, ActorBook> } {
    const repaired = this.#database.transaction(() => repairBooks(this.#booksContext()))();
    this.ledger.books.load(repaired.books);
    return repaired;
  }

  /** Counters; `queued` is the worker's. */
  stats(queued: number): StoreStats {
    const { stats: stream, readerCount: streamReaders } = this.publisher;
    const apply = sumOf(this.#applyStats);
    const freePages = Number(this.#database.pragma("freelist_count", { simple: true }));
    const dbVersion = this.ledger.lastLocal;
    const timeouts = this.#timeouts;
    const fault = this.#fault;
    const checkpoints = { ...this.#checkpoints.stats };
    const { syncs: logSyncs } = this.#log;
    const gauges = { streamReaders, queued, dbVersion, freePages, logSyncs };
    const { stats: kept } = this.#kept;
    return { apply, stream, checkpoints, kept, fault, timeouts, ...gauges };
  }

  /** Remembers a call that failed because of the disk or the file. */
  noteFailure(thrown: unknown): void {
    const { code, message } = toStoreError(thrown, "STORE_SQL");
    if (code === "STORE_FULL" || code === "STORE_CORRUPT") this.#fault = { code, message };
  }

  /**
   * After a failure of the disk: looks whether there is room again, by writing a piece that it takes
   * back. A damaged file stays one.
   */
  retryAfterFailure(): void {
    if (this.#fault?.code !== "STORE_FULL") return;
    try {
      assertRoom(this.#database);
      this.#fault = null;
    } catch (thrown) {
      this.noteFailure(thrown);
    }
  }

  /** Closes the database and gives up the lock. */
  close(): void {
    this.publisher.close();
    this.#checkpoints.close();
    this.#freePages.close();
    this.#log.close();
    this.#parts.writer.close();
    this.#open.close();
  }

  #write(ts: bigint, work: () => void): LocalCommit | null {
    const commit = this.#parts.writer.write(ts, work);
    if (commit !== null) this.#committedOwn(commit);
    return commit;
  }

  /** Versions that are here without some of their changes: what they lack may be known now. */
  #reopenCut(): boolean {
    const cut = this.#kept.allCut();
    for (const { actorId, version } of cut) {
      this.ledger.books.recordMissing(actorId, { start: version, end: version });
    }
    return cut.length > 0;
  }

  #committedOwn({ lastSeq }: LocalCommit): void {
    this.#log.committed();
    this.#committed(lastSeq + 1);
  }

  #committed(changes: number): void {
    this.#checkpoints.committed(changes);
    this.#freePages.committed(changes);
    this.publisher.committed();
  }

  #createParts(): Parts {
    const database = this.#database;
    const { ledger } = this;
    const { deadline } = this.#open;
    const { nowMs } = this.#clocks;
    const tables = readCrrTables(database);
    const rows = new VersionRowReader(database, tables);
    const applier = new Applier({
      database,
      tables,
      ledger,
      kept: this.#kept,
      isDirect: this.#writesRowsDirectly,
      nowMs,
    });
    this.#applyStats.push(applier.stats);
    return {
      writer: new LocalWriter({ database, tables, ledger, rows, deadline, nowMs }),
      applier,
      server: new VersionServer({ database, ledger, kept: this.#kept, rows }),
      objects: new ObjectStore(database),
    };
  }

  #booksContext() {
    const database = this.#database;
    return {
      database,
      tables: readCrrTables(database),
      books: this.ledger.books.snapshot(),
    };
  }

  #publisherSource() {
    const { ledger, databaseId } = this;
    const database = this.#database;
    const rows = new RowReader({ database, tables: readCrrTables(database), ledger });
    return { rows, databaseId, position: () => ledger.lastLocal, retainedFrom: () => 0 };
  }
}

function hasChanged(change: SchemaChange): boolean {
  return change.tablesCreated + change.tablesAdopted + change.columnsAdded > 0;
}

function sumOf(all: readonly ApplyStats[]): ApplyStats {
  const sum: ApplyStats = {
    slices: 0,
    slicesOverBudget: 0,
    slicesRetried: 0,
    changesetsRefused: 0,
    rowsChanged: 0,
    rowsWrittenDirectly: 0,
    keptRefused: 0,
  };
  for (const stats of all) {
    sum.slices += stats.slices;
    sum.slicesOverBudget += stats.slicesOverBudget;
    sum.slicesRetried += stats.slicesRetried;
    sum.changesetsRefused += stats.changesetsRefused;
    sum.rowsChanged += stats.rowsChanged;
    sum.rowsWrittenDirectly += stats.rowsWrittenDirectly;
    sum.keptRefused += stats.keptRefused;
  }
  return sum;
}

interface MemberRow {
  readonly actor_id: Uint8Array;
  readonly address: string;
  readonly foca_state: string;
  readonly rtt_min: bigint | null;
  readonly updated_at: bigint;
}
