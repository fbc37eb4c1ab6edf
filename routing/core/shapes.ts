/**
 * The shapes of rows that a routing table has applied, so that one that it has never applied can be
 * told: a column that was empty in every row so far, a new value of a column with few values, a
 * text, number or blob larger than any, a value of another type, a text with other characters.
 *
 * | of each column | grows when                                                          |
 * |----------------|---------------------------------------------------------------------|
 * | `kinds`        | a value of another kind is in use; empty ones are none, see `KIND`  |
 * | `size`         | a value needs more binary digits, above a floor that all rows share |
 * | `words`        | `ENUM_COLUMNS` only: another word                                   |
 *
 * It is as large as the schema, whatever the number of rows.
 */
import type { RowChange } from "../types.ts";

type Row = NonNullable<RowChange["row"]>;
type Value = Row[string];

interface ColumnShape {
  /** Bits of `KIND`. */
  kinds: number;
  /** Binary digits of the largest length or magnitude. */
  size: number;
  /** Null = any word will do. */
  readonly words: Set<string> | null;
}

/** What outlives the process, as plain JSON: table -> column -> kinds, size, words. */
export type ShapesImage = Readonly<
  Record<string, Readonly<Record<string, readonly [number, number, readonly string[]]>>>
>;

/** Shapes applied so far. */
export class SeenShapes {
  readonly #tables = new Map<string, Map<string, ColumnShape>>();

  /** Takes over what `image` gave; null when `value` is nothing of the kind. Total for any value. */
  static read(value: unknown): SeenShapes | null {
    if (!isRecord(value)) return null;
    const seen = new SeenShapes();
    for (const [table, columns] of Object.entries(value)) {
      if (!isRecord(columns)) return null;
      for (const [column, entry] of Object.entries(columns)) {
        if (!isEntry(entry)) return null;
        const [kinds, size, words] = entry;
        const shape = seen.#columnOf(table, column);
        shape.kinds = kinds;
        shape.size = size;
        for (const word of words) shape.words?.add(word);
      }
    }
    return seen;
  }

  /** Whether a row like this has been applied. Cost: its columns. */
  has({ table, row }: Pick<RowChange, "table" | "row">): boolean {
    if (row === null) return true;
    const columns = this.#tables.get(table);
    for (const column in row) {
      const value = row[column] ?? null;
      const kind = kindOf(value);
      if (kind !== 0 && !isWithin(columns?.get(column), kind, value)) return false;
    }
    return true;
  }

  /** A row like this has been applied, and the table goes on. */
  learn({ table, row }: Pick<RowChange, "table" | "row">): void {
    for (const column in row) {
      const value = row[column] ?? null;
      const kind = kindOf(value);
      if (kind === 0) continue;
      const shape = this.#columnOf(table, column);
      shape.kinds |= kind;
      shape.size = Math.max(shape.size, sizeOf(value));
      if (typeof value === "string" && shape.words !== null && shape.words.size < WORDS_MAX) {
        shape.words.add(wordOf(value));
      }
    }
  }

  /** Plain data to keep. */
  image(): ShapesImage {
    return Object.fromEntries(
      [...this.#tables].map(([table, columns]) => [
        table,
        Object.fromEntries(
          [...columns].map(([column, { kinds, size, words }]) => [
            column,
            [kinds, size, [...(words ?? [])]] as const,
          ]),
        ),
      ]),
    );
  }

  #columnOf(table: string, column: string): ColumnShape {
    let columns = this.#tables.get(table);
    if (columns === undefined) this.#tables.set(table, (columns = new Map()));
    let shape = columns.get(column);
    if (shape === undefined) {
      const words = ENUM_COLUMNS.has(`${table}.${column}`) ? new Set<string>() : null;
      columns.set(column, (shape = { kinds: 0, size: 0, words }));
    }
    return shape;
  }
}

/** The shape of a row as one text, the same on every edge: what decides who applies it first. */
export function shapeText({ table, row }: Pick<RowChange, "table" | "row">): string {
  const columns = Object.keys(row ?? {}).toSorted();
  const parts = columns.flatMap((column) => {
    const value = row?.[column] ?? null;
    const kind = kindOf(value);
    if (kind === 0) return [];
    const isEnum = typeof value === "string" && ENUM_COLUMNS.has(`${table}.${column}`);
    return [`${column}:${kind}:${sizeOf(value)}${isEnum ? `:${wordOf(value)}` : ""}`];
  });
  return `${table} ${parts.join(" ")}`;
}

function isWithin(shape: ColumnShape | undefined, kind: number, value: Value): boolean {
  if (shape === undefined) return false;
  if ((shape.kinds & kind) !== kind || sizeOf(value) > shape.size) return false;
  if (shape.words === null || typeof value !== "string") return true;
  // A column with that many words is no enumeration, whatever it is called.
  return shape.words.size >= WORDS_MAX || shape.words.has(wordOf(value));
}

/** 0 = empty: the column is not in use. */
function kindOf(value: Value): number {
  if (value === null || value === "" || value === 0 || value === 0n) return 0;
  if (typeof value === "string") return PLAIN.test(value) ? KIND.text : KIND.text | KIND.otherText;
  if (value instanceof Uint8Array) return KIND.blob;
  return value < 0 ? KIND.number | KIND.negative : KIND.number;
}

function sizeOf(value: Value): number {
  if (typeof value === "string") return Math.max(digits(value.length), TEXT_DIGITS);
  if (value instanceof Uint8Array) return Math.max(digits(value.byteLength), TEXT_DIGITS);
  return Math.max(digits(Math.abs(Number(value ?? 0))), NUMBER_DIGITS);
}

/** Binary digits of the whole part: 0 for less than 1. */
function digits(magnitude: number): number {
  return magnitude < 1 ? 0 : Math.floor(Math.log2(magnitude)) + 1;
}

/** A word that is long is told from others by its beginning. */
function wordOf(value: string): string {
  return value.slice(0, WORD_LENGTH_MAX);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isEntry(value: unknown): value is [number, number, string[]] {
  if (!Array.isArray(value)) return false;
  const [kinds, size, words] = value as unknown[];
  const isCounted = Number.isSafeInteger(kinds) && Number.isSafeInteger(size);
  return isCounted && Array.isArray(words) && words.every((word) => typeof word === "string");
}

const KIND = { text: 1, number: 2, blob: 4, negative: 8, otherText: 16 } as const;
/** Printable ASCII. */
const PLAIN = /^[\x20-\x7e]*$/;
/** Columns whose values are words of a short list. Names, ids and regions are not: anybody makes them. */
const ENUM_COLUMNS: ReadonlySet<string> = new Set([
  "nodes.kind",
  "machines.state",
  "services.protocol",
  "checks.status",
]);
/** Far more than any of these columns has. */
const WORDS_MAX = 64;
const WORD_LENGTH_MAX = 64;
/** Texts below 128 characters and numbers below 65,536 are of one size: names and limits vary. */
const TEXT_DIGITS = 7;
const NUMBER_DIGITS = 16;
