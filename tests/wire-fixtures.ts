/** For tests of what travels between replicas: captured frames, arbitrary changesets, hexadecimal. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import type { Changeset, ColumnChange, SqlValue } from "../replica/types.ts";

/** Actors A and B of the protocol reference's worked examples. */
export const ACTOR_A = "00112233-4455-6677-8899-aabbccddeeff";
export const ACTOR_B = "ffeeddcc-bbaa-9988-7766-554433221100";
/** The stamp of the worked examples: 1,750,000,000 s. */
export const TS = 0x684ee180_00000000n;

/** Reads a file of `tests/vectors`; the caller knows its shape. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
export function readVectors<Shape>(name: string): Shape {
  const url = new URL(`vectors/${name}`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")) as Shape;
}

/** Bytes of hexadecimal text; spaces are allowed. */
export function hexToBytes(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(/\s/g, ""), "hex"));
}

/** Hexadecimal text of bytes. */
export function bytesToHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** A changeset as the captures describe it. */
export interface CapturedChangeset {
  readonly kind: "FullV2" | "Empty";
  readonly version?: number;
  readonly tables?: readonly {
    readonly table: string;
    readonly rows: readonly {
      readonly pk: string;
      readonly columns: readonly {
        readonly cid: string;
        readonly val: null | { readonly text?: string; readonly int?: string };
        readonly colVersion: number;
        readonly seq: number;
        readonly cl: number;
      }[];
    }[];
  }[];
  readonly lastSeq?: number;
  readonly seqs?: readonly [number, number];
  readonly versions?: readonly [number, number];
  readonly ts: string | null;
}

/** A captured changeset in this project's form. */
export function changesetFromCapture(actorId: string, captured: CapturedChangeset): Changeset {
  if (captured.kind === "Empty") {
    const [start, end] = captured.versions!;
    const ts = captured.ts === null ? null : BigInt(captured.ts);
    return { kind: "empty", actorId, versions: { start, end }, ts };
  }
  const changes: ColumnChange[] = [];
  for (const { table, rows } of captured.tables!) {
    for (const { pk, columns } of rows) {
      for (const column of columns) {
        changes.push({ ...column, table, pk: hexToBytes(pk), val: valueFromCapture(column.val) });
      }
    }
  }
  const [start, end] = captured.seqs!;
  return {
    kind: "full",
    actorId,
    version: captured.version!,
    changes: changes.toSorted((left, right) => left.seq - right.seq),
    seqs: { start, end },
    lastSeq: captured.lastSeq!,
    ts: BigInt(captured.ts!),
  };
}

function valueFromCapture(value: null | { text?: string; int?: string }): SqlValue {
  if (value === null) return null;
  return value.text ?? BigInt(value.int!);
}

/** Any value that SQLite can hold. */
export const sqlValues: fc.Arbitrary<SqlValue> = fc.oneof(
  fc.constant(null),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.double({ noNaN: true }),
  fc.string({ unit: "grapheme" }),
  fc.string({ unit: "grapheme", minLength: 30, maxLength: 60 }),
  fc.uint8Array(),
);

/** Any actor id. */
export const actorIds: fc.Arbitrary<string> = fc.uuid();

const counters = fc.nat({ max: Number.MAX_SAFE_INTEGER });

/** Any full or empty changeset that a replica may send. */
export const changesets: fc.Arbitrary<Changeset> = fc.oneof(
  fc.record({
    kind: fc.constant("empty" as const),
    actorId: actorIds,
    versions: ranges(1),
    ts: fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  }),
  fc
    .record({
      actorId: actorIds,
      version: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      lastSeq: counters,
      first: fc.nat({ max: 1e9 }),
      ts: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      changes: fc.array(
        fc.record({
          table: fc.constantFrom("machines", "services", "größe"),
          pk: fc.constantFrom("0101", "010901", "010b0161").map(hexToBytes),
          cid: fc.constantFrom("-1", "state", "a column with a rather long name"),
          val: sqlValues,
          colVersion: counters,
          cl: counters,
        }),
      ),
    })
    .map(({ actorId, version, lastSeq, first, ts, changes }) => ({
      kind: "full" as const,
      actorId,
      version,
      changes: changes.map((change, index) => ({ ...change, seq: first + index })),
      seqs: { start: first, end: first + changes.length },
      lastSeq,
      ts,
    })),
);

/** Any inclusive range from `least`. */
export function ranges(least: number): fc.Arbitrary<{ start: number; end: number }> {
  const bound = fc.integer({ min: least, max: Number.MAX_SAFE_INTEGER });
  return fc.tuple(bound, bound).map(([left, right]) => ({
    start: Math.min(left, right),
    end: Math.max(left, right),
  }));
}

/** Bytes of both kinds that find decoder bugs: noise, and a valid message cut, grown or bent. */
export function hostileBytes(valid: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const bent = fc
    .tuple(
      fc.constantFrom(...valid),
      fc.array(fc.tuple(fc.nat({ max: 400 }), fc.nat({ max: 255 })), { maxLength: 4 }),
      fc.nat({ max: 400 }),
    )
    .map(([bytes, edits, length]) => {
      const copy = bytes.slice(0, length);
      for (const [at, byte] of edits) if (at < copy.length) copy[at] = byte;
      return copy;
    });
  return fc.oneof(fc.uint8Array({ maxLength: 300 }), bent);
}
