/** Schema files against a database file from outside of its replica: planning, and changing it at rest. */
import { existsSync } from "node:fs";
import Database from "better-sqlite3";
import { unixMsToNtp64 } from "../../core/hlc.ts";
import { storeError, toFileError } from "./errors.ts";
import { schemaChangeText } from "./schema-apply.ts";
import { readSchema, type SchemaFile } from "./schema-files.ts";
import { planSchema, type SchemaPlan } from "./schema-plan.ts";
import { Store } from "./store.ts";

/** A database file, which need not exist to be planned for, and schema files. */
export interface OfflineSchema {
  readonly path: string;
  readonly files: readonly SchemaFile[];
  readonly extensionPath: string;
  readonly deadlinePath: string;
}

/**
 * Plans for a database that may be in use. Throws `STORE_SCHEMA`, or `STORE_CORRUPT` for a file that
 * cannot be read.
 */
export function planForFile({ path, files, extensionPath }: OfflineSchema): SchemaPlan {
  const schema = readSchema(files);
  const database = existsSync(path) ? openForReading(path) : new Database(":memory:");
  try {
    return planSchema(database, schema, { extensionPath, nowMs: () => performance.now() });
  } finally {
    database.close();
  }
}

/**
 * Brings a database whose replica does not run to the files, and says what was changed. Throws
 * `STORE_LOCKED` when it runs, `STORE_SCHEMA`, or what opening a store throws; nothing changed then.
 */
export function applyToFile({ path, files, extensionPath, deadlinePath }: OfflineSchema): string {
  if (!existsSync(path)) {
    const hint = "a replica makes it at its first start, with the files of db.schema_paths";
    throw storeError("STORE_SCHEMA", `${path} does not exist: ${hint}; --db-path names another`);
  }
  const store = new Store(
    { path, extensionPath, deadlinePath, nodeId: "schema", schemaFiles: [] },
    { nowMs: () => performance.now(), wallMs: () => Date.now() },
  );
  try {
    const { change } = store.applySchema(files, unixMsToNtp64(Date.now()));
    return `${path}: ${schemaChangeText(files.length, change)}`;
  } finally {
    store.close();
  }
}

function openForReading(path: string): Database.Database {
  try {
    return new Database(path, { readonly: true, fileMustExist: true, timeout: BUSY_MS });
  } catch (thrown) {
    throw toFileError(thrown, path, "STORE_CORRUPT");
  }
}

/** A checkpoint of the owner may hold the file for a moment. */
const BUSY_MS = 5_000;
