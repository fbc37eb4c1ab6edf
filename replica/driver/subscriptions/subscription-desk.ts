/**
 * All subscriptions and readers of updates of one database: who is subscribed to what, and the turn
 * that takes in what was committed.
 *
 * A turn reads, in one read transaction, which rows changed since the turn before, tells the readers
 * of updates, and refreshes each subscription that reads one of their tables, those last that must
 * be read whole. However many commits came meanwhile are one turn.
 */
import { randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type Database from "better-sqlite3";
import { errorText } from "#base/errors.ts";
import { printSqlValue } from "../api/json.ts";
import { SqlDeadline } from "../store/sql-deadline.ts";
import { subscriptionError } from "./errors.ts";
import { QueryPlan } from "./query-plan.ts";
import type { Reader } from "./reader.ts";
import { seaHashHex } from "#base/sea-hash.ts";
import { Subscription } from "./subscription.ts";
import { SubscriptionFile } from "./subscription-file.ts";
import type {
  StreamTarget,
  SubscriptionFilter,
  SubscriptionLimits,
  SubscriptionView,
} from "./subscription-messages.ts";
import { TableWatch, type ChangedRow } from "./table-watch.ts";

/** What a desk is made with. */
export interface DeskOptions {
  /** A plain read connection that nobody else uses. */
  readonly database: Database.Database;
  /** Folder of the kept subscriptions. */
  readonly folder: string;
  readonly limits: SubscriptionLimits;
  /** Something that an operator may want to know. */
  readonly notice: (text: string) => void;
  /** The monotonic clock, in ms. */
  readonly clock: () => number;
  /** The extension that ends SQL when its time is up. */
  readonly deadlinePath: string;
}

/** What a reader was connected to. */
export interface Opened {
  readonly queryId: string;
  readonly queryHash: string | null;
  /** Gives the reader its first lines; call it once the answer is on its way. */
  readonly start: (reader: Reader) => void;
  /** Call it when the reader is gone. */
  readonly leave: (reader: Reader) => void;
}

interface UpdatesTopic {
  readonly queryId: string;
  readonly readers: Set<Reader>;
}

/** The desk; every call is synchronous and leaves no transaction open. */
export class SubscriptionDesk {
  readonly #options: DeskOptions;
  readonly #database: Database.Database;
  readonly #deadline: SqlDeadline;
  readonly #byId = new Map<string, Subscription>();
  /** Restored when somebody asks, or one after the other in idle time. */
  readonly #unrestored = new Map<string, SubscriptionFile>();
  readonly #topicByTable = new Map<string, UpdatesTopic>();
  readonly #statements: Statements;
  #watch: TableWatch;
  #schemaVersion: unknown;

  constructor(options: DeskOptions) {
    this.#options = options;
    this.#database = options.database;
    this.#deadline = new SqlDeadline(options.database, options.deadlinePath);
    this.#statements = prepareStatements(options.database);
    this.#watch = new TableWatch(this.#database);
    this.#schemaVersion = this.#readSchemaVersion();
    this.#findKept();
  }

  /** Subscriptions that were kept by an earlier run and are not restored yet. */
  get unrestoredCount(): number {
    return this.#unrestored.size;
  }

  /** When a turn is due though nothing was committed; Infinity = never. */
  get dueMs(): number {
    let dueMs = Infinity;
    for (const subscription of this.#byId.values()) dueMs = Math.min(dueMs, subscription.dueMs);
    return dueMs;
  }

  /** Finds or makes what a reader asks for. Throws codes of subscriptions and of the store. */
  open(target: StreamTarget): Opened {
    if (target.kind === "updates") return this.#openUpdates(target.table);
    const subscription =
      target.kind === "id"
        ? this.#find(({ id }) => id === target.queryId)
        : this.#find(({ sql }) => sql === target.sql);
    if (subscription !== null) return this.#opened(subscription, target);
    if (target.kind === "id") {
      const text = `could not find subscription with id ${target.queryId}`;
      throw subscriptionError("SUBSCRIPTION_UNKNOWN", text);
    }
    if (target.from !== null) {
      const text = "a `from` query param was supplied, but no existing subscription found";
      throw subscriptionError("SUBSCRIPTION_FROM", text);
    }
    return this.#opened(this.#create(target.sql), target);
  }

  /** Takes in what was committed since the last turn. Cost: see `Subscription`. */
  turn(): void {
    this.#inTransaction(() => {
      if (this.#readSchemaVersion() !== this.#schemaVersion) this.#onSchemaChange();
      const changed = this.#watch.changed();
      for (const [table, rows] of changed) this.#tellUpdates(table, rows);
      const dear: Subscription[] = [];
      for (const subscription of this.#byId.values()) {
        if (subscription.isReadWhole(changed)) dear.push(subscription);
        else this.#refresh(subscription, changed);
      }
      for (const subscription of dear) this.#refresh(subscription, changed);
    });
  }

  /** Shows all subscriptions, or the one asked for; those kept by an earlier run are restored. */
  views({ hash, id }: SubscriptionFilter): SubscriptionView[] {
    if (hash === null && id === null) {
      while (this.unrestoredCount > 0) this.restoreNext();
      return [...this.#byId.values()].map((subscription) => subscription.view);
    }
    const found = this.#find((one) =>
      hash === null ? one.id === id : seaHashHex(one.sql) === hash,
    );
    return found === null ? [] : [found.view];
  }

  /** Restores one kept subscription. */
  restoreNext(): void {
    const [id] = this.#unrestored.keys();
    if (id !== undefined) this.#restore(id);
  }

  /** Removes subscriptions that have had no reader for too long. */
  expire(nowMs: number): void {
    for (const subscription of this.#byId.values()) {
      const isIdle = subscription.readers.size === 0;
      if (isIdle && nowMs - subscription.idleSinceMs >= this.#options.limits.idleMs) {
        this.#drop(subscription, null);
      }
    }
  }

  /** Ends every reader and keeps every subscription. */
  close(): void {
    for (const { readers } of this.#topicByTable.values()) for (const one of readers) one.end();
    for (const subscription of this.#byId.values()) subscription.close(null);
    for (const file of this.#unrestored.values()) file.close();
    this.#byId.clear();
    this.#unrestored.clear();
  }

  #findKept(): void {
    const { folder, notice } = this.#options;
    mkdirSync(folder, { recursive: true });
    for (const name of readdirSync(folder)) {
      if (!/^[0-9a-f]{32}$/.test(name)) continue;
      const path = join(folder, name);
      try {
        const file = SubscriptionFile.open(path);
        if (file !== null) {
          this.#unrestored.set(file.record.id, file);
          continue;
        }
        notice(`the subscription ${name} was not closed in order and is not restored`);
      } catch (thrown) {
        notice(`the subscription ${name} cannot be read: ${errorText(thrown)}`);
      }
      rmSync(path, { recursive: true, force: true });
    }
  }

  #find(isIt: (one: { id: string; sql: string }) => boolean): Subscription | null {
    for (const { record } of this.#unrestored.values()) {
      if (isIt(record)) return this.#restore(record.id);
    }
    for (const subscription of this.#byId.values()) if (isIt(subscription)) return subscription;
    return null;
  }

  #create(sql: string): Subscription {
    const { folder, limits } = this.#options;
    if (this.#byId.size + this.#unrestored.size >= limits.subscriptionsMax) {
      const text = `${limits.subscriptionsMax} subscriptions exist`;
      throw subscriptionError("SUBSCRIPTION_BUSY", text);
    }
    return this.#inTransaction(() => {
      const plan = new QueryPlan(this.#database, this.#watch.tables, sql);
      const { columns, items } = plan;
      const record = { id: randomUUID(), sql, columns, itemCount: items.length };
      return this.#begin(SubscriptionFile.create(folder, record), plan, { isRestored: false });
    });
  }

  #restore(id: string): Subscription | null {
    const file = this.#unrestored.get(id);
    if (file === undefined) return null;
    this.#unrestored.delete(id);
    try {
      return this.#inTransaction(() => {
        const plan = new QueryPlan(this.#database, this.#watch.tables, file.record.sql);
        if (!isSameForm(plan, file)) throw new Error("the columns are others now");
        return this.#begin(file, plan, { isRestored: true });
      });
    } catch (thrown) {
      file.destroy();
      this.#options.notice(`the subscription ${id} is not restored: ${errorText(thrown)}`);
      return null;
    }
  }

  #begin(
    file: SubscriptionFile,
    plan: QueryPlan,
    { isRestored }: { isRestored: boolean },
  ): Subscription {
    const { limits, clock } = this.#options;
    const deadline = this.#deadline;
    const subscription = new Subscription({ file, plan, limits, clock, deadline, isRestored });
    try {
      subscription.fill();
    } catch (thrown) {
      if (!isRestored) subscription.destroy(null);
      throw thrown;
    }
    for (const table of plan.tables) this.#watch.add(table);
    this.#byId.set(subscription.id, subscription);
    return subscription;
  }

  #opened(subscription: Subscription, target: Exclude<StreamTarget, { kind: "updates" }>): Opened {
    const { id, hash } = subscription;
    return {
      queryId: id,
      queryHash: hash,
      start: (reader) => subscription.attach(reader, target),
      leave: (reader) => {
        subscription.readers.delete(reader);
        subscription.idleSinceMs = this.#options.clock();
      },
    };
  }

  #openUpdates(table: string): Opened {
    if (!this.#watch.tables.has(table)) {
      throw subscriptionError("SUBSCRIPTION_TABLE", `table not found in schema: ${table}`);
    }
    const known = this.#topicByTable.get(table);
    const topic = known ?? { queryId: randomUUID(), readers: new Set<Reader>() };
    this.#topicByTable.set(table, topic);
    // From now on, not from the moment that the answer is on its way.
    this.#inTransaction(() => this.#watch.add(table));
    return {
      queryId: topic.queryId,
      queryHash: null,
      start: (reader) => topic.readers.add(reader),
      leave: (reader) => {
        topic.readers.delete(reader);
        if (topic.readers.size === 0) this.#topicByTable.delete(table);
        this.#forgetTables();
      },
    };
  }

  #tellUpdates(table: string, rows: readonly ChangedRow[]): void {
    const topic = this.#topicByTable.get(table);
    if (topic === undefined || topic.readers.size === 0) return;
    for (let at = 0; at < rows.length; at += UPDATES_AT_ONCE) {
      const text = rows
        .slice(at, at + UPDATES_AT_ONCE)
        .map(({ key, isDeleted }) => {
          const kind = isDeleted ? "delete" : "update";
          return `${JSON.stringify({ notify: [kind, key.map(printSqlValue)] })}\n`;
        })
        .join("");
      for (const reader of topic.readers) reader.offer(text);
    }
  }

  #refresh(subscription: Subscription, changed: ReadonlyMap<string, readonly ChangedRow[]>): void {
    try {
      subscription.refresh(changed);
    } catch (thrown) {
      this.#drop(subscription, errorText(thrown));
    }
  }

  #onSchemaChange(): void {
    const before = this.#watch;
    this.#watch = new TableWatch(this.#database);
    this.#watch.resume(before);
    this.#schemaVersion = this.#readSchemaVersion();
    for (const subscription of this.#byId.values()) {
      try {
        const plan = new QueryPlan(this.#database, this.#watch.tables, subscription.sql);
        if (isSameForm(plan, subscription.plan)) {
          subscription.plan = plan;
          subscription.markStale();
          for (const table of plan.tables) this.#watch.add(table);
          continue;
        }
        this.#drop(subscription, "the schema changed, and the query's columns with it");
      } catch (thrown) {
        this.#drop(subscription, `the schema changed: ${errorText(thrown)}`);
      }
    }
  }

  #drop(subscription: Subscription, error: string | null): void {
    this.#byId.delete(subscription.id);
    subscription.destroy(error);
    this.#forgetTables();
    if (error !== null) {
      this.#options.notice(`the subscription ${subscription.id} is given up: ${error}`);
    }
  }

  #forgetTables(): void {
    const used = new Set(this.#topicByTable.keys());
    for (const { plan } of this.#byId.values()) for (const table of plan.tables) used.add(table);
    this.#watch.keep(used);
  }

  #readSchemaVersion(): unknown {
    return this.#statements.schemaVersion.get();
  }

  #inTransaction<Value>(work: () => Value): Value {
    if (this.#database.inTransaction) return work();
    this.#statements.begin.run();
    try {
      return work();
    } finally {
      this.#statements.commit.run();
    }
  }
}

/** Run in every turn: to prepare them took longer than to find out what changed. */
interface Statements {
  readonly begin: Database.Statement<[]>;
  readonly commit: Database.Statement<[]>;
  readonly schemaVersion: Database.Statement<[], bigint>;
}

function prepareStatements(database: Database.Database): Statements {
  return {
    begin: database.prepare<[]>("BEGIN"),
    commit: database.prepare<[]>("COMMIT"),
    schemaVersion: database.prepare<[], bigint>("PRAGMA schema_version").pluck(),
  };
}

function isSameForm(
  plan: QueryPlan,
  kept: SubscriptionFile | Pick<QueryPlan, "columns" | "items">,
): boolean {
  const columns = "record" in kept ? kept.record.columns : kept.columns;
  const itemCount = "record" in kept ? kept.record.itemCount : kept.items.length;
  return plan.columns.join("\0") === columns.join("\0") && plan.items.length === itemCount;
}

/** Lines of one text to a reader of updates: about 16 KiB. */
const UPDATES_AT_ONCE = 512;
