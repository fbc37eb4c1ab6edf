/**
 * The last known routing table as a file beside the database: what an edge starts from before it
 * reads SQLite.
 *
 * ```
 * {"format":"patina-table","version":2,"databaseId":"...","dbVersion":812,"savedMs":1767225600000,
 *  "build":"...","shapes":{...}}                                         one line
 * ["machines",["m1","shop","worker-1","fra","started"],["m2",...]]      512 rows at most per line
 * ["services",...]
 * {"rows":4711,"sha256":"..."}                                          of all bytes above
 * ```
 *
 * Rows are those in use, not those of the database: a change that stalls the table is never in it.
 * They are written while the table goes on changing, and the watermark is that of the beginning, so
 * whoever follows the change stream from there ends up with the same table. The file is written
 * under another name, synced and renamed. One that is cut short, damaged or of another version is
 * set aside; nothing depends on it but the time of a start.
 */
import { createHash, type Hash } from "node:crypto";
import { readFileSync, renameSync } from "node:fs";
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { errorText } from "#base/errors.ts";
import { type Result, failure, success } from "#base/machine.ts";
import type { RowChange, SqlValue, Watermark } from "../replica/types.ts";
import { SeenShapes, type ShapesImage } from "../routing/core/shapes.ts";
import type { TableRow } from "../routing/types.ts";

/** What a file holds. */
export interface TableFile {
  /** Rows as the change stream would bring them, in the order of their tables. */
  readonly rows: readonly RowChange[];
  /** Where the change stream goes on. */
  readonly watermark: Watermark;
  /** When it was written, in milliseconds since the Unix epoch. */
  readonly savedMs: number;
  /** Shapes that the build that wrote it had applied; null = none that can be read. */
  readonly seen: { readonly build: string; readonly shapes: SeenShapes } | null;
}

/** What to write. */
export interface TableImage {
  readonly rows: Iterable<TableRow>;
  /** Read before the first row is. */
  readonly watermark: Watermark;
  readonly savedMs: number;
  readonly build: string;
  readonly shapes: ShapesImage;
}

/** The file that belongs to a database. */
export function tableFileOf(databasePath: string): string {
  return `${databasePath}.table`;
}

/**
 * Writes the file durably and whole; returns its number of rows. The thread is given back between
 * pieces of 512 rows. Rejects when the disk refuses: the file before is then still there.
 */
export async function writeTableFile(path: string, image: TableImage): Promise<number> {
  let rows = 0;
  await writeWhole(path, async (file) => {
    rows = await writeAll(file, image);
  });
  return rows;
}

/**
 * Has a file written under another name, synced and renamed: it is there whole, or as it was
 * before. Rejects when the disk refuses.
 */
export async function writeWhole(
  path: string,
  write: (file: FileHandle) => Promise<void>,
): Promise<void> {
  const temporary = `${path}.tmp`;
  const file = await open(temporary, "w", 0o640);
  try {
    await write(file);
    await file.sync();
  } catch (error) {
    await file.close();
    await rm(temporary, { force: true });
    throw error;
  }
  await file.close();
  await rename(temporary, path);
  await syncFolder(dirname(path));
}

/** Reads the file; null = there is none. The failure says what is wrong with it. Never throws. */
export function readTableFile(path: string): Result<TableFile | null, string> {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return success(null);
    return failure(errorText(error));
  }
  try {
    return decode(bytes);
  } catch (error) {
    return failure(errorText(error));
  }
}

/** Moves a damaged file out of the way, for somebody to look at; returns its new name. */
export function setAside(path: string): string {
  const aside = `${path}.damaged`;
  renameSync(path, aside);
  return aside;
}

async function writeAll(file: FileHandle, image: TableImage): Promise<number> {
  const hash = createHash("sha256");
  const { watermark, savedMs, build, shapes } = image;
  const head = { format: FORMAT, version: VERSION, ...watermark, savedMs, build, shapes };
  await put(file, hash, head);
  let count = 0;
  let line: unknown[] = [];
  for (const { table, row } of image.rows) {
    if (line[0] !== table || line.length > LINE_ROWS) {
      if (line.length > 0) await put(file, hash, line);
      line = [table];
    }
    line.push((COLUMNS[table] ?? []).map((column) => row[column]));
    count += 1;
  }
  if (line.length > 0) await put(file, hash, line);
  await file.appendFile(`${JSON.stringify({ rows: count, sha256: hash.digest("hex") })}\n`);
  return count;
}

async function put(file: FileHandle, hash: Hash, line: unknown): Promise<void> {
  const text = `${JSON.stringify(line)}\n`;
  hash.update(text);
  await file.appendFile(text);
}

/** May throw whatever JSON and shapes make it: the caller turns that into the failure. */
function decode(bytes: Buffer): Result<TableFile, string> {
  const end = bytes.lastIndexOf(NEWLINE, bytes.length - 2) + 1;
  if (end === 0 || bytes.at(-1) !== NEWLINE) return failure("it is cut short");
  const [first = "", ...lines] = bytes.subarray(0, end).toString("utf8").trimEnd().split("\n");
  const head = JSON.parse(first) as Partial<FileHead>;
  if (head.format !== FORMAT) return failure("it is no routing table");
  if (head.version !== VERSION) return failure(`it is of version ${String(head.version)}`);
  const { databaseId, dbVersion, savedMs } = head;
  if (typeof databaseId !== "string" || !Number.isSafeInteger(dbVersion)) {
    return failure("its position in the change stream is missing");
  }
  const foot = JSON.parse(bytes.subarray(end).toString("utf8")) as Partial<FileFoot>;
  const sha256 = createHash("sha256").update(bytes.subarray(0, end)).digest("hex");
  if (foot.sha256 !== sha256) return failure("its checksum does not fit");
  const rows = lines.flatMap(decodeLine);
  if (rows.length !== foot.rows) return failure("rows are missing");
  const watermark = { databaseId, dbVersion: dbVersion ?? 0 };
  const shapes = SeenShapes.read(head.shapes);
  const seen = typeof head.build === "string" && shapes ? { build: head.build, shapes } : null;
  return success({ rows, watermark, savedMs: Number(savedMs), seen });
}

function decodeLine(line: string): RowChange[] {
  const [table, ...rows] = JSON.parse(line) as [string, ...SqlValue[][]];
  const columns = COLUMNS[table] ?? [];
  const keyColumns = KEY_COLUMNS[table] ?? 0;
  return rows.map((values) => ({
    table,
    key: values.slice(0, keyColumns),
    row: Object.fromEntries(columns.map((column, index) => [column, values[index] ?? null])),
    // Whose transaction it was is not in the table; the evidence of a stall says so.
    actorId: "",
    version: 0,
  }));
}

/** The rename itself must survive a power cut. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

interface FileHead extends Watermark {
  readonly format: string;
  readonly version: number;
  readonly savedMs: number;
  readonly build: unknown;
  readonly shapes: unknown;
}

interface FileFoot {
  readonly rows: number;
  readonly sha256: string;
}

const FORMAT = "patina-table";
/** 1: without kinds of nodes and shapes. 2: as below. Another for any other columns or order. */
const VERSION = 2;
/** Columns of each table as rows have them, key columns first. */
const COLUMNS: Readonly<Record<string, readonly string[]>> = {
  nodes: ["id", "actor_id", "region", "kind", "latitude", "longitude"],
  hostnames: ["hostname", "app_id"],
  machines: ["id", "app_id", "node_id", "region", "state"],
  services: ["machine_id", "name", "protocol", "address", "soft_limit", "hard_limit"],
  checks: ["machine_id", "service", "name", "status"],
};
const KEY_COLUMNS: Readonly<Record<string, number>> = {
  nodes: 1,
  hostnames: 1,
  machines: 1,
  services: 2,
  checks: 3,
};
/** Some 30 KB and a third of a millisecond. */
const LINE_ROWS = 512;
const NEWLINE = 0x0a;
