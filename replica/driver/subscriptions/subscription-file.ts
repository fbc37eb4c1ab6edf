/**
 * What is kept of one subscription: its query, the result's rows with their ids, and the latest
 * changes. One SQLite file in a folder named by the subscription's id.
 *
 * | table | holds |
 * |---|---|
 * | `meta` | id, SQL text, columns, number of items, whether it is complete, how it was closed |
 * | `query` | `row_id`, `identity`, the cells as JSON, and the key of each item when there are several |
 * | `changes` | `id` and the line as it was sent |
 *
 * It is written without waiting for the disk: after kill -9 all is there. A file that was open when
 * the machine itself went down may be anything, and is not restored.
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";

/** What a subscription is; never changes. */
export interface SubscriptionRecord {
  /** Hyphenated UUID. */
  readonly id: string;
  /** SQL text with values in place of parameters. */
  readonly sql: string;
  readonly columns: readonly string[];
  /** Tables whose keys make up a row's identity; 0 = rows are known by their cells. */
  readonly itemCount: number;
}

/** A row as kept. */
export interface KeptRow {
  /** Stable while the row is part of the result. */
  readonly rowId: number;
  readonly identity: string;
  /** JSON array. */
  readonly cells: string;
}

/** The file of one subscription, open for writing. */
export class SubscriptionFile {
  readonly record: SubscriptionRecord;
  readonly folder: string;
  readonly #database: Database.Database;
  readonly #find: Database.Statement<[string], KeptRow>;
  readonly #byKey: Database.Statement<[string], KeptRow>[];
  readonly #firstKeys: Database.Statement<[string], string>[];
  readonly #put: Database.Statement<string[], number>;
  readonly #remove: Database.Statement<[number]>;
  readonly #addChange: Database.Statement<[number, string]>;
  readonly #trim: Database.Statement<[number]>;
  #lastChangeId: number;

  /** Makes an empty one; its rows follow, then `commit`. */
  static create(parent: string, record: SubscriptionRecord): SubscriptionFile {
    const folder = join(parent, record.id.replaceAll("-", ""));
    mkdirSync(folder, { recursive: true });
    const database = connect(folder);
    database.exec(tablesFor(record.itemCount));
    writeMeta(database, { ...record, boot: bootId(), state: "open" });
    return new SubscriptionFile(folder, database, record);
  }

  /** Opens what an earlier run kept; null when it cannot be relied on. Throws SQLite's errors. */
  static open(folder: string): SubscriptionFile | null {
    const database = connect(folder);
    try {
      const meta = readMeta(database);
      const isSameBoot = meta.boot === bootId() && meta.boot !== "";
      if (meta.isComplete !== true || (meta.state !== "closed" && !isSameBoot)) {
        database.close();
        return null;
      }
      writeMeta(database, { boot: bootId(), state: "open" });
      return new SubscriptionFile(folder, database, meta as SubscriptionRecord);
    } catch (thrown) {
      database.close();
      throw thrown;
    }
  }

  private constructor(folder: string, database: Database.Database, record: SubscriptionRecord) {
    this.folder = folder;
    this.#database = database;
    const { id, sql, columns, itemCount } = record;
    this.record = { id, sql, columns, itemCount };
    const select = "SELECT row_id AS rowId, identity, cells FROM query";
    this.#find = database.prepare(`${select} WHERE identity = ?`);
    const keys = keyColumns(itemCount);
    this.#byKey = keys.map((key) => database.prepare(`${select} WHERE ${key} = ?`));
    this.#firstKeys = keys.map((key) =>
      database.prepare<[string], string>(`SELECT k0 FROM query WHERE ${key} = ?`).pluck(),
    );
    const names = ["identity", "cells", ...keys];
    // Like Corrosion's, an update takes a row id that is then never used.
    this.#put = database
      .prepare<string[], number>(
        `INSERT INTO query (${names.join(", ")}) VALUES (${names.map(() => "?").join(", ")})` +
          " ON CONFLICT (identity) DO UPDATE SET cells = excluded.cells RETURNING row_id",
      )
      .pluck();
    this.#remove = database.prepare("DELETE FROM query WHERE row_id = ?");
    this.#addChange = database.prepare("INSERT INTO changes (id, line) VALUES (?, ?)");
    this.#trim = database.prepare("DELETE FROM changes WHERE id <= ?");
    const last = database.prepare<[], number | null>("SELECT max(id) FROM changes").pluck().get();
    this.#lastChangeId = last ?? 0;
  }

  /** Id of the latest change; 0 = none yet. */
  get lastChangeId(): number {
    return this.#lastChangeId;
  }

  /** The least change id that can be replayed. */
  get firstChangeId(): number {
    const statement = this.#database.prepare<[], number | null>("SELECT min(id) FROM changes");
    return statement.pluck().get() ?? this.#lastChangeId + 1;
  }

  begin(): void {
    this.#database.exec("BEGIN");
  }

  /** Also says that the first result is complete. */
  commit(): void {
    writeMeta(this.#database, { isComplete: true });
    this.#database.exec("COMMIT");
  }

  rollback(): void {
    if (this.#database.inTransaction) this.#database.exec("ROLLBACK");
    const last = this.#database.prepare<[], number | null>("SELECT max(id) FROM changes").pluck();
    this.#lastChangeId = last.get() ?? 0;
  }

  find(identity: string): KeptRow | undefined {
    return this.#find.get(identity);
  }

  /** Rows that a row of an item takes part in. */
  rowsWithKey(item: number, key: string): KeptRow[] {
    return this.#byKey[item]?.all(key) ?? this.#find.all(key);
  }

  /** Keys of the first item's rows that a row of an item is matched with. */
  firstKeysWith(item: number, key: string): string[] {
    const statement = this.#firstKeys[item];
    return statement === undefined ? [key] : statement.all(key);
  }

  /** Adds a row, or gives it other cells; its id. */
  put(row: { identity: string; keys: readonly string[]; cells: string }): number {
    const keys = this.#byKey.length === 0 ? [] : row.keys;
    return this.#put.get(row.identity, row.cells, ...keys) ?? 0;
  }

  remove(rowId: number): void {
    this.#remove.run(rowId);
  }

  /** Rows whose ids are not in `seen`. */
  rowsBeside(seen: ReadonlySet<number>): KeptRow[] {
    const all = this.#database.prepare<[], KeptRow>(
      "SELECT row_id AS rowId, identity, cells FROM query",
    );
    return [...all.iterate()].filter(({ rowId }) => !seen.has(rowId));
  }

  /** Records a change; the line for it, without line feed. */
  addChange(kind: "insert" | "update" | "delete", rowId: number, cells: string): string {
    const id = ++this.#lastChangeId;
    const line = `{"change":["${kind}",${rowId},${cells},${id}]}`;
    this.#addChange.run(id, line);
    return line;
  }

  /** Forgets changes, now and then, but for the `retained` latest. */
  trim(retained: number): void {
    if (this.#lastChangeId - this.firstChangeId >= 2 * retained) {
      this.#trim.run(this.#lastChangeId - retained);
    }
  }

  /** Lines of the changes after an id. */
  changesAfter(id: number): string[] {
    const statement = this.#database.prepare<[number], string>(
      "SELECT line FROM changes WHERE id > ? ORDER BY id",
    );
    return statement.pluck().all(id);
  }

  /**
   * Rows as lines in texts of about `size` characters, as they are at the first one: read on a
   * connection of its own, which ends with it.
   */
  *rowTexts(size: number): Generator<string> {
    const database = new Database(join(this.folder, FILE_NAME), { readonly: true });
    try {
      const rows = database.prepare<[], { rowId: number; cells: string }>(
        "SELECT row_id AS rowId, cells FROM query ORDER BY row_id",
      );
      let text = "";
      for (const { rowId, cells } of rows.iterate()) {
        text += `{"row":[${rowId},${cells}]}\n`;
        if (text.length < size) continue;
        yield text;
        text = "";
      }
      yield text;
    } finally {
      database.close();
    }
  }

  /** The rows as one text if it is short; null when there are more than `rowsMax`. */
  shortText(rowsMax: number): string | null {
    const rows = this.#database
      .prepare<[number], { rowId: number; cells: string }>(
        "SELECT row_id AS rowId, cells FROM query ORDER BY row_id LIMIT ?",
      )
      .all(rowsMax + 1);
    if (rows.length > rowsMax) return null;
    return rows.map(({ rowId, cells }) => `{"row":[${rowId},${cells}]}\n`).join("");
  }

  /** Closes the file so that it survives whatever comes. */
  close(): void {
    this.#database.pragma("synchronous = FULL");
    writeMeta(this.#database, { state: "closed" });
    this.#database.close();
  }

  /** Closes it and removes it with its folder. */
  destroy(): void {
    this.#database.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

type Meta = Partial<SubscriptionRecord> & {
  readonly boot?: string;
  readonly state?: "open" | "closed";
  readonly isComplete?: boolean;
};

function connect(folder: string): Database.Database {
  const database = new Database(join(folder, FILE_NAME));
  database.pragma("journal_mode = WAL");
  database.pragma("synchronous = OFF");
  return database;
}

function keyColumns(itemCount: number): string[] {
  // With one item its key is the identity.
  return itemCount < 2 ? [] : Array.from({ length: itemCount }, (_, index) => `k${index}`);
}

function tablesFor(itemCount: number): string {
  const keys = keyColumns(itemCount);
  return [
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
    "CREATE TABLE query (row_id INTEGER PRIMARY KEY AUTOINCREMENT,",
    ` identity TEXT NOT NULL UNIQUE, cells TEXT NOT NULL${keys.map((key) => `, ${key}`).join("")});`,
    ...keys.map((key) => `CREATE INDEX query_${key} ON query (${key});`),
    "CREATE TABLE changes (id INTEGER PRIMARY KEY, line TEXT NOT NULL);",
  ].join("\n");
}

function writeMeta(database: Database.Database, meta: Meta): void {
  const put = database.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)");
  for (const [key, value] of Object.entries(meta)) put.run(key, JSON.stringify(value));
}

function readMeta(database: Database.Database): Meta {
  const rows = database
    .prepare<[], { key: string; value: string }>("SELECT key, value FROM meta")
    .all();
  return Object.fromEntries(rows.map(({ key, value }) => [key, JSON.parse(value) as unknown]));
}

/** Differs after each start of the machine; empty where the system does not tell. */
function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch (thrown) {
    // Only Linux has it.
    if (thrown instanceof Error) return "";
    throw thrown;
  }
}

const FILE_NAME = "sub.sqlite";
