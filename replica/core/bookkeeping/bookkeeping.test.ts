import fc from "fast-check";
import { describe, expect, test } from "vitest";

import type { FullChangeset, VersionRange } from "../../types.ts";
import { type BookChange, Bookkeeping } from "./bookkeeping.ts";

describe("versions", () => {
  test("a version beyond head + 1 opens a gap, which is reported as a row to insert", () => {
    const books = new Bookkeeping();
    expect(books.recordComplete(A, one(4))).toEqual({
      actorId: A,
      head: 4,
      gapsDeleted: [],
      gapsInserted: [{ start: 1, end: 3 }],
      partials: [],
    });
    expect(books.contains(A, one(4))).toBe(true);
    expect(books.contains(A, { start: 3, end: 4 })).toBe(false);
    expect(books.contains(A, one(5))).toBe(false);
  });

  test("a head that is only heard of opens a gap up to itself", () => {
    const books = new Bookkeeping();
    books.recordComplete(A, one(2));
    expect(books.recordHead(A, 5)).toEqual({
      actorId: A,
      head: 5,
      gapsDeleted: [],
      gapsInserted: [{ start: 3, end: 5 }],
      partials: [],
    });
    expect(books.recordHead(A, 4)).toMatchObject({ head: null, gapsInserted: [] });
    expect(books.head(A)).toBe(5);
  });

  test("filling the middle of a gap cuts its row in two and leaves the head", () => {
    const books = new Bookkeeping();
    books.recordComplete(A, one(10));
    expect(books.recordEmpty(A, { start: 4, end: 5 })).toMatchObject({
      head: null,
      gapsDeleted: [{ start: 1, end: 9 }],
      gapsInserted: [
        { start: 1, end: 3 },
        { start: 6, end: 9 },
      ],
    });
  });

  test("an Empty that straddles the head closes gaps below and advances the head", () => {
    const books = new Bookkeeping();
    books.recordComplete(A, one(3));
    books.recordEmpty(A, { start: 2, end: 6 });
    expect(books.syncState(B)).toMatchObject({
      heads: new Map([[A, 6]]),
      need: new Map([[A, [one(1)]]]),
    });
  });

  test("an actor never heard of has head 0 and contains nothing", () => {
    const books = new Bookkeeping();
    expect(books.head(A)).toBe(0);
    expect(books.contains(A, one(1))).toBe(false);
  });
});

describe("partials", () => {
  test("a chunk makes its version partial, neither a gap nor known", () => {
    const books = new Bookkeeping();
    books.recordPartial(chunk(2, [0, 3], 9));
    expect(books.contains(A, one(2))).toBe(false);
    expect(books.containsSeqs(A, 2, { start: 1, end: 3 })).toBe(true);
    expect(books.containsSeqs(A, 2, { start: 1, end: 4 })).toBe(false);
    expect(books.syncState(B)).toEqual({
      actorId: B,
      heads: new Map([[A, 2]]),
      need: new Map([[A, [one(1)]]]),
      partialNeed: new Map([[A, new Map([[2, [{ start: 4, end: 9 }]]])]]),
      lastClearedTs: null,
    });
  });

  test("the first lastSeq and ts learnt are kept", () => {
    const books = new Bookkeeping();
    books.recordPartial(chunk(1, [0, 3], 9));
    books.recordPartial({ ...chunk(1, [4, 5], 7), ts: 99n });
    expect(books.partial(A, 1)).toMatchObject({ lastSeq: 9, ts: 1n });
  });

  test("the chunk that covers the last missing seqs completes the version", () => {
    const books = new Bookkeeping();
    books.recordPartial(chunk(1, [0, 3], 9));
    expect(books.classify(chunk(1, [5, 9], 9))).toBe("partial");
    expect(books.classify(chunk(1, [4, 9], 9))).toBe("completes");
    expect(books.classify(chunk(1, [4, 12], 12))).toBe("completes");
  });

  test("a complete message closes the version although its lastSeq is smaller", () => {
    const books = new Bookkeeping();
    books.recordPartial(chunk(1, [0, 3], 9));
    expect(books.classify(chunk(1, [0, 2], 2))).toBe("complete");
    expect(books.recordComplete(A, one(1)).partials).toMatchObject([
      { version: 1, isClosed: true, seqsDeleted: [{ start: 0, end: 3 }] },
    ]);
    expect(books.contains(A, one(1))).toBe(true);
  });

  test("an Empty drops partial state of every version in its range", () => {
    const books = new Bookkeeping();
    books.recordPartial(chunk(2, [0, 3], 9));
    books.recordPartial(chunk(5, [0, 3], 9));
    const change = books.recordEmpty(A, { start: 1, end: 4 });
    expect(change.partials.map((partial) => partial.version)).toEqual([2]);
    expect(books.partial(A, 5)).toBeDefined();
  });

  test("a chunk of a version known whole records nothing", () => {
    const books = new Bookkeeping();
    books.recordComplete(A, one(1));
    expect(books.recordPartial(chunk(1, [0, 3], 9)).partials).toEqual([]);
    expect(books.partial(A, 1)).toBeUndefined();
  });
});

describe("classification", () => {
  test.each([
    ["a whole version not yet seen", chunk(3, [0, 0], 0), "complete"],
    ["a whole version already seen", chunk(1, [0, 0], 0), "known"],
    ["a part of a version already seen", chunk(1, [0, 3], 9), "known"],
    ["buffered seqs again", chunk(2, [1, 2], 9), "known"],
    ["seqs upside down", chunk(3, [2, 1], 9), "invalid"],
    ["version 0", chunk(0, [0, 0], 0), "invalid"],
    ["a lone chunk that reaches beyond its lastSeq", chunk(4, [0, 12], 9), "completes"],
  ] as const)("%s", (_claim, changeset, expected) => {
    const books = new Bookkeeping();
    books.recordComplete(A, one(1));
    books.recordPartial(chunk(2, [0, 3], 9));
    expect(books.classify(changeset)).toBe(expected);
  });

  test("seqs without rows are normal: a version is whole by its seqs, however few rows came", () => {
    const books = new Bookkeeping();
    const rowless = { ...GAPPED, changes: [] };
    expect(books.classify({ ...rowless, seqs: { start: 0, end: 9 } })).toBe("complete");
    books.recordPartial({ ...rowless, seqs: { start: 0, end: 4 } });
    expect(books.classify({ ...rowless, seqs: { start: 6, end: 9 } })).toBe("partial");
    expect(books.classify({ ...rowless, seqs: { start: 5, end: 9 } })).toBe("completes");
  });

  test("an Empty is known only when every version of it is", () => {
    const books = new Bookkeeping();
    books.recordComplete(A, { start: 1, end: 3 });
    const empty = (start: number, end: number) =>
      books.classify({ kind: "empty", actorId: A, versions: { start, end }, ts: null });
    expect(empty(1, 3)).toBe("known");
    expect(empty(1, 4)).toBe("complete");
    expect(empty(2, 1)).toBe("invalid");
  });
});

const GAPPED = {
  kind: "full",
  actorId: "aaaaaaaa-0000-4000-8000-000000000000",
  version: 1,
  lastSeq: 9,
  ts: 16n,
} as const;

describe("transactions", () => {
  test("many records are netted to the rows that differ in the end", () => {
    const books = new Bookkeeping();
    books.recordComplete(A, one(101));
    books.begin();
    for (let version = 100; version > 50; version -= 1) books.recordComplete(A, one(version));
    expect(books.commit()).toEqual([
      {
        actorId: A,
        head: null,
        gapsDeleted: [{ start: 1, end: 100 }],
        gapsInserted: [{ start: 1, end: 50 }],
        partials: [],
      },
    ]);
  });

  test("a version opened and closed in one transaction is reported closed", () => {
    const books = new Bookkeeping();
    books.begin();
    books.recordPartial(chunk(1, [0, 3], 9));
    books.recordComplete(A, one(1));
    expect(books.commit()[0]?.partials).toMatchObject([
      { version: 1, isClosed: true, seqsDeleted: [], seqsInserted: [] },
    ]);
  });

  test("a rollback leaves no trace, and rows stored from changes load to the same books", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.array(record))), (transactions) => {
        const books = new Bookkeeping();
        const stored = new StoredRows();
        for (const [isCommitted, records] of transactions) {
          const before = books.snapshot();
          books.begin();
          for (const each of records) perform(books, each);
          if (isCommitted) for (const change of books.commit()) stored.store(change);
          else {
            books.rollback();
            expect(books.snapshot()).toEqual(before);
          }
          expect(stored.partials()).toEqual(partialsOf(books));
          expect(stored.gaps()).toEqual(books.syncState(B).need.get(A) ?? []);
          expect(stored.head).toBe(books.head(A));
        }
      }),
    );
  });

  test("changes returned one by one lead to the same rows as netted ones", () => {
    fc.assert(
      fc.property(fc.array(record), (records) => {
        const books = new Bookkeeping();
        const stored = new StoredRows();
        for (const each of records) stored.store(perform(books, each));
        expect(stored.gaps()).toEqual(books.syncState(B).need.get(A) ?? []);
        expect(stored.partials()).toEqual(partialsOf(books));
      }),
    );
  });
});

test("every version at or below the head is exactly one of known, gap and partial", () => {
  fc.assert(
    fc.property(fc.array(record), (records) => {
      const books = new Bookkeeping();
      const closed = new Set<number>();
      for (const each of records) {
        perform(books, each);
        if (each.kind === "complete") for (const version of integers(each)) closed.add(version);
      }
      const lacking = integers({ start: 1, end: books.head(A) }).filter((at) => !closed.has(at));
      expect(books.lackingVersions(A)).toBe(lacking.length);
      for (let version = 1; version <= books.head(A); version += 1) {
        const isPartial = books.partial(A, version) !== undefined;
        expect(books.contains(A, one(version))).toBe(closed.has(version));
        if (isPartial) expect(closed.has(version)).toBe(false);
      }
    }),
  );
});

test("the order of arrival does not matter for what is known in the end", () => {
  fc.assert(
    fc.property(fc.array(completeRecord), (records) => {
      const forward = new Bookkeeping();
      const backward = new Bookkeeping();
      for (const each of records) perform(forward, each);
      for (const each of records.toReversed()) perform(backward, each);
      expect(backward.snapshot()).toEqual(forward.snapshot());
    }),
  );
});

test("a mirror that lost answers of the store is mended by what the store says it knows", () => {
  const mirror = new Bookkeeping();
  mirror.follow({ kind: "buffered", changeset: chunk(1, [0, 3], 9) });
  // That the rest was applied was never heard; both chunks come again.
  mirror.follow({ kind: "known", changeset: chunk(1, [0, 3], 9) });
  expect(mirror.isLacking()).toBe(true);
  mirror.follow({ kind: "known", changeset: chunk(1, [4, 9], 9) });
  expect(mirror.isLacking()).toBe(false);
  expect(mirror.contains(A, one(1))).toBe(true);
});

test("a mirror that follows the store's answers ends with the store's books", () => {
  const mirror = new Bookkeeping();
  const part = chunk(2, [0, 3], 9);
  mirror.follow({ kind: "buffered", changeset: part });
  mirror.follow({ kind: "applied", changeset: chunk(1, [0, 0], 0), rowsChanged: 1 });
  mirror.follow({ kind: "refused", changeset: chunk(9, [0, 0], 0), reason: "unknown table" });
  mirror.follow({ kind: "known", changeset: part });
  expect(mirror.head(A)).toBe(2);
  mirror.follow({ kind: "applied", changeset: chunk(2, [4, 9], 9), rowsChanged: 1 });
  expect(mirror.contains(A, { start: 1, end: 2 })).toBe(true);
});

const A = "aaaaaaaa-0000-4000-8000-000000000000";
const B = "bbbbbbbb-0000-4000-8000-000000000000";

type Recorded =
  | { kind: "complete"; start: number; end: number }
  | { kind: "partial"; version: number; seqs: [number, number] };

const completeRecord = fc
  .tuple(fc.integer({ min: 1, max: 20 }), fc.nat({ max: 4 }))
  .map(([start, width]): Recorded => ({ kind: "complete", start, end: start + width }));
const partialRecord = fc
  .tuple(fc.integer({ min: 1, max: 20 }), fc.nat({ max: 9 }), fc.nat({ max: 3 }))
  .map(([version, start, width]): Recorded => ({
    kind: "partial",
    version,
    seqs: [start, start + width],
  }));
const record = fc.oneof(completeRecord, partialRecord);

function perform(books: Bookkeeping, each: Recorded): BookChange {
  if (each.kind === "complete") return books.recordComplete(A, each);
  return books.recordPartial(chunk(each.version, each.seqs, 15));
}

/** What a store would hold: one row per gap and per seq range. */
class StoredRows {
  head = 0;
  readonly #gapEnds = new Map<number, number>();
  readonly #seqEnds = new Map<number, Map<number, number>>();

  store(change: BookChange): void {
    this.head = change.head ?? this.head;
    for (const row of change.gapsDeleted) this.#gapEnds.delete(row.start);
    for (const row of change.gapsInserted) this.#gapEnds.set(row.start, row.end);
    for (const partial of change.partials) {
      const rows = this.#seqEnds.get(partial.version) ?? new Map<number, number>();
      for (const row of partial.seqsDeleted) rows.delete(row.start);
      for (const row of partial.seqsInserted) rows.set(row.start, row.end);
      if (partial.isClosed) expect(rows.size).toBe(0);
      if (rows.size === 0) this.#seqEnds.delete(partial.version);
      else this.#seqEnds.set(partial.version, rows);
    }
  }

  gaps(): VersionRange[] {
    return sorted(this.#gapEnds);
  }

  partials(): Map<number, VersionRange[]> {
    const versions = [...this.#seqEnds].sort(([a], [b]) => a - b);
    return new Map(versions.map(([version, rows]) => [version, sorted(rows)]));
  }
}

function partialsOf(books: Bookkeeping): Map<number, readonly VersionRange[]> {
  const partials = [...(books.snapshot().get(A)?.partials ?? [])].sort(([a], [b]) => a - b);
  return new Map(partials.map(([version, partial]) => [version, partial.seqs]));
}

function sorted(endByStart: Map<number, number>): VersionRange[] {
  return [...endByStart].sort(([a], [b]) => a - b).map(([start, end]) => ({ start, end }));
}

function integers({ start, end }: VersionRange): number[] {
  return Array.from({ length: end - start + 1 }, (_, at) => start + at);
}

function one(version: number): VersionRange {
  return { start: version, end: version };
}

function chunk(version: number, seqs: readonly [number, number], lastSeq: number): FullChangeset {
  const [start, end] = seqs;
  return { kind: "full", actorId: A, version, changes: [], seqs: { start, end }, lastSeq, ts: 1n };
}
