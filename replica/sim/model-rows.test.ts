import fc from "fast-check";
import { expect, test } from "vitest";

import type { ColumnChange } from "../types.ts";
import { ModelRows, SENTINEL, type Writer } from "./model-rows.ts";

test("merging is commutative: any order gives the same rows and the same owners", () => {
  fc.assert(
    fc.property(shuffledMerges, ([merges, shuffled]) => {
      const [one, other] = [new ModelRows(), new ModelRows()];
      for (const [change, writer] of merges) one.merge(change, writer);
      for (const [change, writer] of shuffled) other.merge(change, writer);
      expect(other.digest()).toBe(one.digest());
      for (const [, writer] of merges) {
        expect(other.changesOf(writer).map(nameOf)).toEqual(one.changesOf(writer).map(nameOf));
      }
    }),
  );
});

test("merging is idempotent: what is there is not taken again", () => {
  fc.assert(
    fc.property(fc.array(merge), (merges) => {
      const rows = new ModelRows();
      for (const [change, writer] of merges) rows.merge(change, writer);
      const before = rows.digest();
      for (const [change, writer] of merges) expect(rows.merge(change, writer)).toBe(false);
      expect(rows.digest()).toBe(before);
    }),
  );
});

test("a delete drops the columns of the life that it ends, and their versions become empty", () => {
  const rows = new ModelRows();
  const insert = { actorId: "a", version: 1 };
  rows.merge({ ...BASE, cid: "v", val: "x", colVersion: 1, seq: 0, cl: 1 }, insert);
  expect(rows.changesOf(insert)).toHaveLength(1);
  const removal = { ...BASE, cid: SENTINEL, val: null, colVersion: 2, seq: 0, cl: 2 };
  rows.merge(removal, { actorId: "b", version: 7 });
  expect(rows.changesOf(insert)).toEqual([]);
  expect(rows.changesOf({ actorId: "b", version: 7 })).toEqual([removal]);
});

const BASE = { table: "t", pk: new Uint8Array([1, 9, 1]) };

/** One change per writer, so that a (writer, seq) names one content. */
const merge = fc
  .record({
    key: fc.nat({ max: 1 }),
    isSentinel: fc.boolean(),
    cid: fc.constantFrom("a", "b"),
    val: fc.constantFrom("x", "y"),
    colVersion: fc.integer({ min: 1, max: 3 }),
    cl: fc.integer({ min: 1, max: 4 }),
    actorId: fc.constantFrom("a", "b", "c"),
  })
  .map((drawn): [ColumnChange, Writer] => {
    // Deleted rows have no columns.
    const isSentinel = drawn.isSentinel || drawn.cl % 2 === 0;
    const cid = isSentinel ? SENTINEL : drawn.cid;
    const val = isSentinel ? null : drawn.val;
    const { cl, actorId } = drawn;
    const colVersion = isSentinel ? cl : drawn.colVersion;
    const pk = new Uint8Array([1, 9, drawn.key]);
    const text = `${drawn.key}${cid}${val}${colVersion}${cl}`;
    let version = 0;
    for (const letter of text) version = version * 31 + letter.charCodeAt(0);
    return [
      { table: "t", pk, cid, val, colVersion, seq: 0, cl },
      { actorId, version },
    ];
  });

const shuffledMerges = fc
  .array(merge)
  .chain((merges) =>
    fc.tuple(
      fc.constant(merges),
      fc.shuffledSubarray(merges, { minLength: merges.length, maxLength: merges.length }),
    ),
  );

function nameOf({ pk, cid, val, colVersion, cl }: ColumnChange): string {
  return `${pk.join()} ${cid} ${String(val)} ${colVersion} ${cl}`;
}
