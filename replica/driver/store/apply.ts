/**
 * Merges changesets of other replicas, in slices of bounded time.
 *
 * A slice is one IMMEDIATE transaction: rows, the record of versions and the bookkeeping are kept
 * or lost together. When a statement fails, the slice is undone and its changesets are tried one by
 * one, so that only the bad one is refused.
 *
 * CHECK constraints are for local writes. A row that is merged column by column may break one on the
 * way, or for good where two writers each kept to it, and whoever refused it would be without that
 * version for ever.
 *
 * What names a table or a column that the schema does not have is kept aside (`kept-aside.ts`), and
 * merged by `applyKept` when it does.
 *
 * How a version is merged, and why in this way, is in docs/decisions/0004-version-map.md.
 */
import type Database from "better-sqlite3";
import { errorText } from "#base/errors.ts";
import type { ActorId, ApplyOutcome, Changeset, ColumnChange, FullChangeset } from "../../types.ts";
import { EncodedChangeset } from "../../core/wire/encoded-changeset.ts";
import type { CrrTables } from "./crr-tables.ts";
import { checkChange, isKnownChange } from "./crr-tables.ts";
import { isStorageFailure, toStoreError } from "./errors.ts";
import type { KeptAside } from "./kept-aside.ts";
import type { Ledger, VersionRecord } from "./ledger.ts";
import { actorBytes } from "./ledger.ts";
import { Merger } from "./merger.ts";

/** What became of a changeset, without the changeset: it does not travel back. */
export interface OutcomeRecord {
  readonly kind: ApplyOutcome["kind"];
  readonly rowsChanged: number;
  readonly reason: string;
}

/** Changesets that are being applied; `outcomes` grows slice by slice. */
export interface ApplyJob {
  readonly changesets: readonly Changeset[];
  readonly outcomes: OutcomeRecord[];
}

/** Counters of the applier since start. */
export interface ApplyStats {
  slices: number;
  /** Slices that took longer than their budget because of one large version. */
  slicesOverBudget: number;
  /** Slices undone and tried one by one. */
  slicesRetried: number;
  changesetsRefused: number;
  rowsChanged: number;
  /** Of these, written without cr-sqlite; those of a slice that was undone are counted, too. */
  rowsWrittenDirectly: number;
  /** Changes kept aside that no longer fitted when their table or column came. */
  keptRefused: number;
}

/** What an applier works on. */
export interface ApplierContext {
  readonly database: Database.Database;
  readonly tables: CrrTables;
  readonly ledger: Ledger;
  readonly kept: KeptAside;
  /** Whether rows of unknown keys are written directly; see `row-writer.ts`. */
  readonly isDirect: boolean;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
}

/** Applies changesets; made anew after a change of the schema. */
export class Applier {
  readonly stats: ApplyStats = {
    slices: 0,
    slicesOverBudget: 0,
    slicesRetried: 0,
    changesetsRefused: 0,
    rowsChanged: 0,
    rowsWrittenDirectly: 0,
    keptRefused: 0,
  };
  readonly #context: ApplierContext;
  readonly #merger: Merger;
  readonly #statements: Statements;
  readonly #hasChecks: boolean;

  constructor(context: ApplierContext) {
    this.#context = context;
    this.#hasChecks = [...context.tables.values()].some((table) => table.hasChecks);
    this.#merger = new Merger(context);
    this.#statements = prepareStatements(context.database);
  }

  /**
   * Applies changesets of `job` from where it stands for about `budgetMs`, at least one. Throws
   * `STORE_FULL`, `STORE_CORRUPT` or `STORE_BUSY` with the slice undone and the job where it was.
   */
  applySlice(job: ApplyJob, budgetMs: number): void {
    const startedMs = this.#context.nowMs();
    const deadlineMs = startedMs + budgetMs;
    const first = job.outcomes.length;
    this.stats.slices += 1;
    this.#setChecks(false);
    try {
      const failed = this.#attempt(job, { end: job.changesets.length, deadlineMs });
      if (failed !== null) this.#applySingly(job, { end: failed.reached, budgetMs });
    } finally {
      this.#setChecks(true);
    }
    this.stats.rowsWrittenDirectly = this.#merger.rowsWrittenDirectly;
    const tookMs = this.#context.nowMs() - startedMs;
    if (tookMs > budgetMs * OVERSHOOT) this.stats.slicesOverBudget += 1;
    for (const outcome of job.outcomes.slice(first)) {
      this.stats.rowsChanged += outcome.rowsChanged;
      if (outcome.kind === "refused") this.stats.changesetsRefused += 1;
    }
  }

  /**
   * Merges what was kept aside and is known now: after a change of the schema, and at start. What does
   * not fit its column, or fails, is dropped and counted. Returns the number of changed rows. Throws as
   * `applySlice` does. O(what is kept).
   */
  applyKept(): number {
    const { kept, tables } = this.#context;
    const ready = kept.subjects().filter((subject) => isKnownChange(tables, subject));
    if (ready.length === 0) return 0;
    this.#setChecks(false);
    try {
      const failed = new Set<string>();
      for (;;) {
        const outcome = this.#attemptKept(ready, failed);
        if (typeof outcome === "string") failed.add(outcome);
        else return outcome;
      }
    } finally {
      this.#setChecks(true);
    }
  }

  /** One transaction without the versions `failed`; rows changed, or which version failed this time. */
  #attemptKept(
    ready: readonly { readonly table: string; readonly cid: string }[],
    failed: ReadonlySet<string>,
  ): number | string {
    const { kept, ledger, tables } = this.#context;
    let name = "";
    let rowsChanged = 0;
    let refusedChanges = 0;
    this.#begin();
    try {
      for (const [version, changes] of kept.take(ready)) {
        name = `${version.actorId} ${version.version}`;
        const fits = (change: ColumnChange): boolean => checkChange(tables, change, null) === null;
        const good = failed.has(name) ? [] : changes.filter(fits);
        refusedChanges += changes.length - good.length;
        rowsChanged += this.#merger.merge(version, good);
      }
      this.#merger.finish();
      ledger.save();
      this.#statements.commit.run();
    } catch (thrown) {
      this.#undo();
      const error = toStoreError(thrown, "STORE_SQL");
      if (isStorageFailure(error) || name === "" || failed.has(name)) throw error;
      return name;
    }
    this.stats.keptRefused += refusedChanges;
    this.stats.rowsChanged += rowsChanged;
    return rowsChanged;
  }

  /** Both ways every statement is prepared anew: only where a table has a CHECK. */
  #setChecks(isOn: boolean): void {
    if (!this.#hasChecks) return;
    this.#context.database.pragma(`ignore_check_constraints = ${isOn ? "OFF" : "ON"}`);
  }

  /** One changeset per transaction, up to the one that failed; that one is refused. */
  #applySingly(job: ApplyJob, range: { end: number; budgetMs: number }): void {
    this.stats.slicesRetried += 1;
    const deadlineMs = this.#context.nowMs() + range.budgetMs;
    while (job.outcomes.length <= range.end) {
      const end = job.outcomes.length + 1;
      const failed = this.#attempt(job, { end, deadlineMs: Infinity });
      if (failed !== null) {
        job.outcomes.push({ kind: "refused", rowsChanged: 0, reason: errorText(failed.thrown) });
      }
      if (this.#context.nowMs() > deadlineMs) return;
    }
  }

  /** One transaction; null when it was committed, else what was thrown and by which changeset. */
  #attempt(
    job: ApplyJob,
    limit: { end: number; deadlineMs: number },
  ): { thrown: unknown; reached: number } | null {
    const { ledger, nowMs } = this.#context;
    const first = job.outcomes.length;
    let reached = first;
    this.#begin();
    try {
      for (; reached < limit.end; reached += 1) {
        const changeset = job.changesets[reached];
        if (changeset === undefined) break;
        const chunks = this.#wholeVersionAt(job.changesets, reached, limit.end);
        if (chunks > 1) {
          const parts = job.changesets.slice(reached, reached + chunks) as FullChangeset[];
          job.outcomes.push(...this.#applyJoined(parts));
          reached += chunks - 1;
        } else {
          job.outcomes.push(this.#applyOne(changeset));
        }
        if (nowMs() >= limit.deadlineMs) break;
      }
      this.#merger.finish();
      ledger.save();
      this.#statements.commit.run();
      for (const one of job.changesets.slice(first, job.outcomes.length)) {
        // Its decoded changes are many times its bytes, and the job may be long.
        if (one instanceof EncodedChangeset) one.release();
      }
      return null;
    } catch (thrown) {
      job.outcomes.length = first;
      this.#undo();
      const error = toStoreError(thrown, "STORE_SQL");
      if (isStorageFailure(error)) throw error;
      return { thrown, reached: Math.min(reached, job.changesets.length - 1) };
    }
  }

  #begin(): void {
    try {
      this.#statements.begin.run();
    } catch (thrown) {
      throw toStoreError(thrown, "STORE_BUSY");
    }
    this.#context.ledger.begin();
    this.#merger.begin();
  }

  #undo(): void {
    const { database, ledger } = this.#context;
    if (database.inTransaction) this.#statements.rollback.run();
    // ROLLBACK does not clear it: local writes would go untracked until the next good merge.
    this.#statements.clearSyncBit.get();
    ledger.undo();
    this.#context.kept.reload();
  }

  /**
   * How many changesets from `at` on are the chunks of one unknown version, from its first seq to its
   * last without a hole; 0 when they are not. As sync brings large versions, it spares the buffer.
   */
  #wholeVersionAt(changesets: readonly Changeset[], at: number, end: number): number {
    const first = changesets[at];
    if (first?.kind !== "full" || first.seqs.start !== 0) return 0;
    if (first.seqs.end >= first.lastSeq) return 0;
    const { actorId, version, lastSeq, ts } = first;
    const { ledger } = this.#context;
    if (actorId === ledger.actorId && !this.#mayTakeOwn(first)) return 0;
    if (ledger.books.partial(actorId, version) !== undefined) return 0;
    if (ledger.books.classify(first) !== "partial") return 0;
    let nextSeq = 0;
    for (let index = at; index < Math.min(end, changesets.length); index += 1) {
      const chunk = changesets[index];
      if (chunk?.kind !== "full" || chunk.version !== version || chunk.actorId !== actorId)
        return 0;
      if (chunk.lastSeq !== lastSeq || chunk.ts !== ts || chunk.seqs.start !== nextSeq) return 0;
      if (chunk.seqs.end < nextSeq || chunk.seqs.end > lastSeq) return 0;
      nextSeq = chunk.seqs.end + 1;
      if (nextSeq > lastSeq) return index - at + 1;
    }
    return 0;
  }

  /** The outcomes that the chunks would have had one by one; all refused when one is not valid. */
  #applyJoined(chunks: readonly FullChangeset[]): OutcomeRecord[] {
    for (const chunk of chunks) {
      const reason = this.#contentsReason(chunk);
      if (reason !== null) return chunks.map(() => refused(reason));
    }
    const [first] = chunks;
    if (first === undefined) return [];
    const whole = this.#merge(
      first,
      chunks.flatMap((chunk) => chunk.changes),
    );
    return [...chunks.slice(1).map(() => BUFFERED), whole];
  }

  #applyOne(changeset: Changeset): OutcomeRecord {
    const { ledger } = this.#context;
    const { books } = ledger;
    const classification = books.classify(changeset);
    if (classification === "invalid") return refused("ranges upside down or out of bounds");
    if (classification === "known") return KNOWN;
    if (changeset.actorId === ledger.actorId && !this.#mayTakeOwn(changeset))
      return refused("a version of our own that we do not have");
    if (changeset.kind === "empty") {
      books.recordEmpty(changeset.actorId, changeset.versions);
      this.#context.kept.mend(changeset.actorId, changeset.versions);
      return { kind: "applied", rowsChanged: 0, reason: "" };
    }
    const reason = this.#contentsReason(changeset);
    if (reason !== null) return refused(reason);
    if (classification === "complete") return this.#merge(changeset, changeset.changes);
    this.#buffer(changeset);
    if (classification === "completes") return this.#mergeBuffered(changeset);
    books.recordPartial(changeset);
    return BUFFERED;
  }

  /**
   * Our own history comes back after a loss. Above our head it would be given out twice if we went
   * on meanwhile; at or below it, it only fills a gap.
   */
  #mayTakeOwn(changeset: Changeset): boolean {
    const { ledger } = this.#context;
    const last = changeset.kind === "full" ? changeset.version : changeset.versions.end;
    return ledger.isInDoubt || last <= ledger.books.head(ledger.actorId);
  }

  #contentsReason(changeset: FullChangeset): string | null {
    const problem = changeset instanceof EncodedChangeset ? changeset.problem : null;
    if (problem !== null) return problem;
    const { seqs } = changeset;
    let previous: ColumnChange | null = null;
    for (const change of changeset.changes) {
      if (change.seq < seqs.start || change.seq > seqs.end)
        return "a row outside the seqs announced";
      const reason = checkChange(this.#context.tables, change, previous);
      if (reason !== null) return reason;
      previous = change;
    }
    return null;
  }

  #merge(
    source: Pick<FullChangeset, "actorId" | "version" | "lastSeq" | "ts">,
    changes: readonly ColumnChange[],
  ): OutcomeRecord {
    const { actorId, version, lastSeq, ts } = source;
    const record = { actorId, version, lastSeq, ts };
    const rowsChanged = this.#merger.merge(record, this.#keepUnknown(record, changes));
    this.#context.ledger.books.recordComplete(actorId, { start: version, end: version });
    return { kind: "applied", rowsChanged, reason: "" };
  }

  /** The changes that can be merged; the others are kept aside. */
  #keepUnknown(
    version: Omit<VersionRecord, "local">,
    changes: readonly ColumnChange[],
  ): readonly ColumnChange[] {
    const { kept, tables } = this.#context;
    kept.mend(version.actorId, { start: version.version, end: version.version });
    const known = changes.filter((change) => isKnownChange(tables, change));
    for (const change of known) kept.overtake(change);
    if (known.length === changes.length) return changes;
    kept.keep(
      version,
      changes.filter((change) => !isKnownChange(tables, change)),
    );
    return known;
  }

  /** Keeps the rows of an incomplete message; the first copy of a row wins. */
  #buffer(changeset: FullChangeset): void {
    const actor = actorBytes(changeset.actorId);
    const version = BigInt(changeset.version);
    for (const change of changeset.changes) {
      const { table, pk, cid, val } = change;
      const numbers = [
        BigInt(change.colVersion),
        version,
        actor,
        BigInt(change.seq),
        BigInt(change.cl),
      ];
      this.#statements.insertBuffered.run(table, pk, cid, val, ...numbers);
    }
  }

  #mergeBuffered(changeset: FullChangeset): OutcomeRecord {
    const { actorId, version } = changeset;
    const partial = this.#context.ledger.books.partial(actorId, version);
    const { lastSeq, ts } = partial ?? changeset;
    const changes = readBuffered(this.#statements.buffered, { actorId, version });
    // The schema may have changed since they were buffered.
    for (const change of changes) {
      const reason = checkChange(this.#context.tables, change, null);
      if (reason !== null) return refused(reason);
    }
    return this.#merge({ actorId, version, lastSeq, ts }, changes);
  }
}

/** Buffered rows of a partial version, ascending by seq. */
export function readBuffered(
  statement: BufferedStatement,
  source: { readonly actorId: ActorId; readonly version: number },
): ColumnChange[] {
  const rows = statement.all(actorBytes(source.actorId), BigInt(source.version));
  return rows.map((row) => ({
    table: row.table,
    pk: new Uint8Array(row.pk),
    cid: row.cid,
    val: row.val,
    colVersion: Number(row.col_version),
    seq: Number(row.seq),
    cl: Number(row.cl),
  }));
}

/** The statement that `readBuffered` takes. */
export function prepareBuffered(database: Database.Database): BufferedStatement {
  return database.prepare<[Uint8Array, bigint], BufferedRow>(
    'SELECT "table", pk, cid, val, col_version, seq, cl FROM __corro_buffered_changes' +
      " WHERE site_id = ? AND db_version = ? ORDER BY seq",
  );
}

type BufferedStatement = Database.Statement<[Uint8Array, bigint], BufferedRow>;

interface BufferedRow {
  readonly table: string;
  readonly pk: Uint8Array;
  readonly cid: string;
  readonly val: ColumnChange["val"];
  readonly col_version: bigint;
  readonly seq: bigint;
  readonly cl: bigint;
}

function refused(reason: string): OutcomeRecord {
  return { kind: "refused", rowsChanged: 0, reason };
}

const BUFFERED: OutcomeRecord = { kind: "buffered", rowsChanged: 0, reason: "" };
const KNOWN: OutcomeRecord = { kind: "known", rowsChanged: 0, reason: "" };
/** A slice ends with the changeset that reaches the budget: only well beyond it is an exception. */
const OVERSHOOT = 1.5;

type Statements = ReturnType<typeof prepareStatements>;

function prepareStatements(database: Database.Database) {
  return {
    begin: database.prepare("BEGIN IMMEDIATE"),
    commit: database.prepare("COMMIT"),
    rollback: database.prepare("ROLLBACK"),
    clearSyncBit: database.prepare("SELECT crsql_internal_sync_bit(0)"),
    buffered: prepareBuffered(database),
    insertBuffered: database.prepare(
      "INSERT OR IGNORE INTO __corro_buffered_changes" +
        ' ("table", pk, cid, val, col_version, db_version,' +
        " site_id, seq, cl) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ),
  };
}
