/**
 * JSON without loss: integers of 64 bits both ways, and REAL told from INTEGER.
 *
 * `JSON.parse` turns 9007199254740993 into another number; a SQLite INTEGER must come through
 * whole. So integers are read from their source text as `bigint`, and `bigint` is written as
 * digits; a REAL that happens to be whole is written with `.0` or an exponent, as serde does.
 */
import { failure, success, type Result } from "#base/machine.ts";
import type { SqlValue } from "../../types.ts";

declare global {
  interface JSON {
    /** A value that `stringify` prints as the text given (ECMAScript 2026; V8 has it). */
    rawJSON(text: string): object;
  }
}

/** Parses a body. Integers are `bigint`, other numbers `number`. The error says where. */
export function parseJson(text: string): Result<unknown, string> {
  try {
    // Reviving from source text takes several times as long as parsing. Where no number can have a
    // fraction, an exponent, or more digits than a double holds, the values tell as much.
    if (!UNSAFE_NUMBER.test(text)) return success(numbersToIntegers(JSON.parse(text)));
    return success(JSON.parse(text, reviveInteger));
  } catch (error) {
    if (error instanceof SyntaxError) return failure(error.message);
    // Reviving walks the value by recursion.
    if (error instanceof RangeError) return failure("nested too deeply");
    throw error;
  }
}

/** Writes one SQLite value as Corrosion does: blobs as arrays of byte numbers. */
export function printSqlValue(value: SqlValue): unknown {
  if (typeof value === "bigint") return JSON.rawJSON(value.toString());
  if (typeof value === "number") return printReal(value);
  if (value instanceof Uint8Array) return [...value];
  return value;
}

/** A value as SQL parameters know it; `undefined` when it is none (an object, a mixed array). */
export function readSqlValue(value: unknown): SqlValue | undefined {
  if (value === null || typeof value === "string") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  if (typeof value === "bigint") return isInt64(value) ? value : readSqlValue(Number(value));
  if (typeof value === "boolean") return value ? 1n : 0n;
  if (Array.isArray(value) && value.every(isByte)) {
    return Uint8Array.from(value, (byte) => Number(byte));
  }
  return undefined;
}

function reviveInteger(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  return typeof value === "number" && source !== undefined && /^-?\d+$/.test(source)
    ? BigInt(source)
    : value;
}

/** The same value with every number, all of them integers, as `bigint`; in place. */
function numbersToIntegers(value: unknown): unknown {
  if (typeof value === "number") return BigInt(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index += 1) {
      value[index] = numbersToIntegers(value[index]);
    }
    return value;
  }
  const fields = value as Record<string, unknown>;
  for (const key of Object.keys(fields)) {
    const field = fields[key];
    const integers = numbersToIntegers(field);
    // Not `__proto__`, which an assignment would take for something else.
    if (integers !== field) Object.defineProperty(fields, key, { ...OWN_FIELD, value: integers });
  }
  return fields;
}

function printReal(value: number): unknown {
  if (!Number.isFinite(value)) return null;
  if (!Number.isInteger(value)) return value;
  // Without a point or an exponent a reader would take it for an INTEGER.
  return JSON.rawJSON(Math.abs(value) < 1e15 ? `${value}.0` : value.toExponential());
}

function isByte(value: unknown): boolean {
  return typeof value === "bigint" && value >= 0n && value <= 255n;
}

function isInt64(value: bigint): boolean {
  return value === BigInt.asIntN(64, value);
}

/** A number that may be no safe integer; also found inside of strings, which costs time only. */
const UNSAFE_NUMBER = /\d[.eE]|\d{16}/;
const OWN_FIELD = { writable: true, enumerable: true, configurable: true } as const;
