import fc from "fast-check";
import { expect, test } from "vitest";
import type { ColumnChange } from "../../types.ts";
import { chunkVersion, estimateChangeBytes } from "./chunker.ts";
import { ACTOR_A, TS, changesetFromCapture, readVectors } from "../../../tests/wire-fixtures.ts";
import type { CapturedChangeset } from "../../../tests/wire-fixtures.ts";

test("chunks tile the seqs, keep every change in order and end as soon as the limit is reached", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.nat({ max: 60 })), { minLength: 1 }),
      fc.integer({ min: 100, max: 400 }),
      fc.nat({ max: 5 }),
      (steps, chunkBytesMax, tail) => {
        let seq = 0;
        const changes = steps.map(([step, size]) => {
          seq += step;
          return change(seq, "x".repeat(size));
        });
        const lastSeq = seq + tail;
        const chunks = chunkVersion({ ...VERSION, changes, lastSeq, chunkBytesMax });
        expect(chunks.flatMap((chunk) => chunk.changes)).toEqual(changes);
        let next = 0;
        for (const chunk of chunks) {
          expect(chunk.seqs.start).toBe(next);
          next = chunk.seqs.end + 1;
          const seqs = chunk.changes.map((item) => item.seq);
          expect(seqs.every((at) => at >= chunk.seqs.start && at < next)).toBe(true);
          const withoutLastSeq = chunk.changes.filter((item) => item.seq !== seqs.at(-1));
          expect(estimated(withoutLastSeq)).toBeLessThan(chunkBytesMax);
          const isLast = chunk === chunks.at(-1);
          expect(isLast || estimated(chunk.changes) >= chunkBytesMax).toBe(true);
        }
        expect(next).toBe(lastSeq + 1);
      },
    ),
  );
});

test("the last chunk reaches lastSeq though the rows at the tail are gone", () => {
  const chunks = chunkVersion({ ...VERSION, changes: [change(3, "v")], lastSeq: 9 });
  expect(chunks.map((chunk) => chunk.seqs)).toEqual([{ start: 0, end: 9 }]);
});

test("chunks of an asked range tile exactly that range and keep the version's lastSeq", () => {
  const [chunk] = chunkVersion({
    ...VERSION,
    changes: [change(12, "v")],
    seqs: { start: 10, end: 20 },
    lastSeq: 15,
  });
  expect(chunk).toMatchObject({ seqs: { start: 10, end: 20 }, lastSeq: 15 });
});

test("changes that share a seq stay in one chunk", () => {
  const changes = [
    change(0, "a"),
    change(1, "b".repeat(50)),
    change(1, "c".repeat(50)),
    change(2, "d"),
  ];
  const chunks = chunkVersion({ ...VERSION, changes, lastSeq: 2, chunkBytesMax: 60 });
  expect(chunks.map((chunk) => chunk.changes.length)).toEqual([3, 1]);
});

test("a transaction that Corrosion cut is cut at the same seq", () => {
  const vectors =
    readVectors<
      readonly { decoded: { broadcast: { actorId: string; changeset: CapturedChangeset } } }[]
    >("broadcast-gossip.json");
  const chunks = vectors
    .map(({ decoded: { broadcast } }) =>
      changesetFromCapture(broadcast.actorId, broadcast.changeset),
    )
    .filter((changeset) => changeset.kind === "full" && changeset.lastSeq > 0);
  const first = chunks[0]!;
  const second = chunks[1]!;
  if (first.kind !== "full" || second.kind !== "full") throw new Error("expected full changesets");
  const changes = [...first.changes, ...second.changes];
  const [cut] = chunkVersion({ ...first, changes, seqs: { start: 0, end: second.seqs.end } });
  expect(cut).toEqual(first);
});

test("a table and a key are estimated once while they repeat", () => {
  const first = change(0, null);
  expect(estimateChangeBytes(first, null)).toBe(1 + 1 + 0 + 24 + 1 + 3);
  expect(estimateChangeBytes(change(1, 5n), first)).toBe(1 + 1 + 8 + 24);
  expect(estimateChangeBytes({ ...first, pk: Uint8Array.of(1, 1) }, first)).toBe(26 + 2);
});

// ---------------------------------------------------------------- helpers

const VERSION = { actorId: ACTOR_A, version: 1, ts: TS };

function change(seq: number, val: ColumnChange["val"]): ColumnChange {
  return { table: "t", pk: Uint8Array.of(1, 9, 1), cid: "v", val, colVersion: 1, seq, cl: 1 };
}

function estimated(changes: readonly ColumnChange[]): number {
  let bytes = 0;
  let previous: ColumnChange | null = null;
  for (const item of changes) {
    bytes += estimateChangeBytes(item, previous);
    previous = item;
  }
  return bytes;
}
