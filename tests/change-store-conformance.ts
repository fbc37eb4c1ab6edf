/**
 * What every implementation of the `ChangeStore` port must do, as a test suite: run on the database
 * behind its worker and on the model that simulations stand on. It is what makes the simulator
 * evidence about production.
 *
 * A store under test has one table `t` with a text key `id` and two text columns, `a` and `b`.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type {
  ActorId,
  ApplyOutcome,
  ChangeStore,
  Changeset,
  FullChangeset,
  LocalCommit,
  SyncNeed,
} from "../replica/types.ts";

/** One write of a transaction; `columns` null = delete the row. A new row gets both columns. */
export interface RowWrite {
  readonly id: string;
  readonly columns: { readonly a?: string; readonly b?: string } | null;
}

/** A store under test. */
export interface StoreSubject {
  readonly store: Pick<ChangeStore, "actorId" | "books" | "apply" | "readVersions">;
  /** Performs one transaction of the store's own. */
  write(writes: readonly RowWrite[]): Promise<LocalCommit | null>;
  /** Live rows as `id a b`, sorted. */
  rows(): Promise<string[]>;
  /** Ends the store and opens what it left on the disk. */
  reopen(): Promise<StoreSubject>;
}

/** Opens an empty store; stores of one test have different numbers, and ids in their order. */
export type OpenSubject = (number: number) => Promise<StoreSubject>;

/** Declares the suite for one implementation. */
export function describeChangeStore(name: string, open: OpenSubject): void {
  describe(`${name} as a change store`, () => {
    declareWriteTests(open);
    declareApplyTests(open);
    declareReadTests(open);
    declareHistoryTests(open);
  });
}

function declareWriteTests(open: OpenSubject): void {
  test("own versions count from 1, and what changes nothing uses none", async () => {
    const subject = await open(1);
    const row = { id: "x", columns: { a: "1", b: "2" } };
    expect((await subject.write([row]))?.version).toBe(1);
    expect(await subject.write([row])).toBeNull();
    expect(await subject.write([{ id: "y", columns: null }])).toBeNull();
    expect((await subject.write([{ id: "x", columns: { a: "3" } }]))?.version).toBe(2);
    expect((await subject.write([{ id: "x", columns: null }]))?.version).toBe(3);
    expect(await subject.rows()).toEqual([]);
  });

  test("a transaction's changesets cover its seqs from 0 to the last, with one stamp", async () => {
    const subject = await open(1);
    const commit = await subject.write([{ id: "x", columns: { a: "1", b: "2" } }]);
    expect(commit?.changesets).toMatchObject([
      { kind: "full", version: 1, seqs: { start: 0, end: commit?.lastSeq }, ts: commit?.ts },
    ]);
  });

  test("books and rows outlive the process", async () => {
    const [source, target] = [await open(1), await open(2)];
    const [first, second] = await chunksOf(source, "x");
    await target.store.apply([first!]);
    await target.write([{ id: "own", columns: { a: "1", b: "2" } }]);
    const again = await target.reopen();
    expect(again.store.actorId).toBe(target.store.actorId);
    expect(again.store.books.get(again.store.actorId)).toMatchObject({ head: 1, gaps: [] });
    const partial = again.store.books.get(source.store.actorId)?.partials.get(1);
    expect(partial).toMatchObject({ seqs: [first!.seqs], lastSeq: first!.lastSeq });
    expect(kindsOf(await again.store.apply([second!]))).toEqual(["applied"]);
    expect(await again.rows()).toEqual(["own 1 2", ...(await source.rows())].toSorted());
  });
}

function declareApplyTests(open: OpenSubject): void {
  test("a version is applied once and known afterwards", async () => {
    const [source, target] = [await open(1), await open(2)];
    const commit = await source.write([{ id: "x", columns: { a: "1", b: "2" } }]);
    const changesets = commit?.changesets ?? [];
    expect(kindsOf(await target.store.apply(changesets))).toEqual(["applied"]);
    expect(kindsOf(await target.store.apply(changesets))).toEqual(["known"]);
    expect(await target.rows()).toEqual(["x 1 2"]);
  });

  test("chunks are buffered in any order until the last, and none of them shows before", async () => {
    const [source, target] = [await open(1), await open(2)];
    const [first, second] = await chunksOf(source, "x");
    expect(kindsOf(await target.store.apply([second!]))).toEqual(["buffered"]);
    expect(kindsOf(await target.store.apply([second!]))).toEqual(["known"]);
    expect(await target.rows()).toEqual([]);
    expect(kindsOf(await target.store.apply([first!]))).toEqual(["applied"]);
    expect(await target.rows()).toEqual(await source.rows());
  });

  test("a later version may come first, an empty one closes its gap", async () => {
    const [source, target] = [await open(1), await open(2)];
    for (const a of ["1", "2", "3"]) await source.write([{ id: "x", columns: { a, b: "-" } }]);
    const served = await readAll(source, source.store.actorId);
    const last = served.filter((changeset) => changeset.kind === "full" && changeset.version === 3);
    expect(kindsOf(await target.store.apply(last))).toEqual(["applied"]);
    const rest = served.filter((changeset) => !last.includes(changeset));
    expect(kindsOf(await target.store.apply(rest))).not.toContain("refused");
    const reopened = await target.reopen();
    expect(reopened.store.books.get(source.store.actorId)).toMatchObject({ head: 3, gaps: [] });
    expect(await reopened.rows()).toEqual(["x 3 -"]);
  });

  test("ranges upside down and below their least value are refused and leave no trace", async () => {
    const [source, target] = [await open(1), await open(2)];
    const commit = await source.write([{ id: "x", columns: { a: "1", b: "2" } }]);
    const good = commit?.changesets[0] as FullChangeset;
    const { actorId } = good;
    const bad: Changeset[] = [
      { ...good, version: 0 },
      { ...good, seqs: { start: 2, end: 1 } },
      { ...good, seqs: { start: -1, end: 1 } },
      { kind: "empty", actorId, versions: { start: 0, end: 1 }, ts: null },
      { kind: "empty", actorId, versions: { start: 5, end: 4 }, ts: null },
    ];
    const outcomes = await target.store.apply([...bad, good]);
    expect(kindsOf(outcomes)).toEqual([...bad.map(() => "refused"), "applied"]);
    expect((await target.reopen()).store.books.get(actorId)?.head).toBe(1);
  });

  test("nobody else writes a store's own versions", async () => {
    const [source, target] = [await open(1), await open(2)];
    const commit = await source.write([{ id: "x", columns: { a: "1", b: "2" } }]);
    const forged = { ...(commit?.changesets[0] as FullChangeset), actorId: target.store.actorId };
    expect(kindsOf(await target.store.apply([forged]))).toEqual(["refused"]);
    expect(await target.rows()).toEqual([]);
    expect((await target.write([{ id: "y", columns: { a: "1", b: "2" } }]))?.version).toBe(1);
  });
}

function declareReadTests(open: OpenSubject): void {
  test("versions are served newest first, overwritten ones as empty at the end", async () => {
    const subject = await open(1);
    await subject.write([{ id: "x", columns: { a: "1", b: "1" } }]);
    await subject.write([{ id: "y", columns: { a: "1", b: "1" } }]);
    await subject.write([{ id: "x", columns: null }]);
    expect(namesOf(await readAll(subject, subject.store.actorId))).toEqual(["3", "2", "empty 1-1"]);
  });

  test("gaps and what is above the head are left out", async () => {
    const [source, target] = [await open(1), await open(2)];
    for (const id of ["x", "y", "z"]) await source.write([{ id, columns: { a: "1", b: "1" } }]);
    const served = await readAll(source, source.store.actorId);
    await target.store.apply(
      served.filter((changeset) => changeset.kind === "full" && changeset.version !== 2),
    );
    expect(namesOf(await readAll(target, source.store.actorId))).toEqual(["3", "1"]);
    expect(await readAll(target, UNKNOWN)).toEqual([]);
  });

  test("of a partial version the seqs that are held are served, of those asked for", async () => {
    const [source, target] = [await open(1), await open(2)];
    const [first, second] = await chunksOf(source, "x");
    await target.store.apply([first!]);
    const { actorId } = source.store;
    const whole = await readAll(target, actorId);
    expect(whole).toMatchObject([{ version: 1, seqs: first!.seqs, lastSeq: first!.lastSeq }]);
    const ask = (seqs: FullChangeset["seqs"]): Promise<readonly Changeset[]> =>
      read(target, actorId, { kind: "partial", version: 1, seqs: [seqs] });
    expect(await ask(first!.seqs)).toEqual(whole);
    expect(await ask(second!.seqs)).toEqual([]);
  });

  test("what is served again is what was committed", async () => {
    const [source, target] = [await open(1), await open(2)];
    const commit = await source.write([{ id: "x", columns: { a: "1", b: "2" } }]);
    await target.store.apply(commit?.changesets ?? []);
    const [own, passed] = [
      await readAll(source, source.store.actorId),
      await readAll(target, source.store.actorId),
    ];
    expect(own).toEqual(commit?.changesets);
    expect(passed).toEqual(own);
  });
}

function declareHistoryTests(open: OpenSubject): void {
  test("histories in any order and in pieces lead to the writers' rows", async () => {
    let number = 10;
    await fc.assert(
      fc.asyncProperty(histories, async ({ steps, order, chunkBytes }) => {
        const writers = [await open(number + 1), await open(number + 2)];
        const reader = await open(number + 3);
        number += 3;
        for (const { at, writes } of steps) await writers[at]!.write(writes);
        const pieces: Changeset[] = [];
        for (const writer of writers) {
          pieces.push(...(await readAll(writer, writer.store.actorId, chunkBytes)));
        }
        const shuffled = pieces
          .map((piece, at) => ({ piece, rank: order[at % order.length] ?? 0 }))
          .toSorted((one, other) => one.rank - other.rank)
          .map(({ piece }) => piece);
        const outcomes = await reader.store.apply([...shuffled, ...pieces]);
        expect(kindsOf(outcomes)).not.toContain("refused");
        const [one, other] = writers as [StoreSubject, StoreSubject];
        await exchange(one, other);
        expect(await one.rows()).toEqual(await other.rows());
        expect(await reader.rows()).toEqual(await one.rows());
      }),
      { numRuns: 15, seed: 1 },
    );
  });
}

const UNKNOWN: ActorId = "eeeeeeee-0000-4000-8000-000000000000";

/** Transactions of two writers on two rows, and an order of delivery. */
const histories = fc.record({
  steps: fc.array(
    fc.record({
      at: fc.nat({ max: 1 }),
      writes: fc.array(
        fc.record({
          id: fc.constantFrom("x", "y"),
          columns: fc.option(
            fc.record({ a: fc.constantFrom("1", "2"), b: fc.constantFrom("1", "2") }),
          ),
        }),
        { minLength: 1, maxLength: 3 },
      ),
    }),
    { maxLength: 12 },
  ),
  order: fc.array(fc.nat(), { minLength: 1, maxLength: 20 }),
  chunkBytes: fc.constantFrom(1, 8192),
});

/** A transaction cut in two. */
async function chunksOf(source: StoreSubject, id: string): Promise<FullChangeset[]> {
  await source.write([{ id, columns: { a: "1", b: "2" } }]);
  const pieces = (await readAll(source, source.store.actorId, 1)) as FullChangeset[];
  const [first, ...others] = pieces.toSorted((one, other) => one.seqs.start - other.seqs.start);
  const second = {
    ...first!,
    changes: others.flatMap(({ changes }) => changes),
    seqs: { start: first!.seqs.end + 1, end: first!.lastSeq },
  };
  return [first!, second];
}

/** Gives each of two stores what the other has written. */
async function exchange(one: StoreSubject, other: StoreSubject): Promise<void> {
  const [fromOne, fromOther] = [
    await readAll(one, one.store.actorId),
    await readAll(other, other.store.actorId),
  ];
  await one.store.apply(fromOther);
  await other.store.apply(fromOne);
}

function readAll(
  subject: StoreSubject,
  actorId: ActorId,
  chunkBytes = 8192,
): Promise<readonly Changeset[]> {
  return read(subject, actorId, { kind: "full", versions: { start: 1, end: 100 } }, chunkBytes);
}

function read(
  subject: StoreSubject,
  actorId: ActorId,
  ...[need, chunkBytes = 8192]: [SyncNeed, number?]
): Promise<readonly Changeset[]> {
  return subject.store.readVersions({ actorId, need, chunkBytes });
}

function kindsOf(outcomes: readonly ApplyOutcome[]): string[] {
  return outcomes.map(({ kind }) => kind);
}

function namesOf(changesets: readonly Changeset[]): string[] {
  return changesets.map((changeset) =>
    changeset.kind === "full"
      ? `${changeset.version}`
      : `empty ${changeset.versions.start}-${changeset.versions.end}`,
  );
}
