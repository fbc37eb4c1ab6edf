import { describe, expect, test } from "vitest";
import fc from "fast-check";
import { createPrng } from "#base/prng.ts";
import { ACTOR_A } from "../../../tests/wire-fixtures.ts";
import type { ColumnChange, FullChangeset } from "../../types.ts";
import { Brake, type BrakeConfig, type Released } from "./brake.ts";

describe("below its limit", () => {
  test("an origin's versions leave at once, as they were offered", () => {
    const brake = createBrake();
    offer(brake, fullOf(1, [cell(1, "a")]), 0);
    expect(brake.drain()).toEqual([
      { kind: "version", changesets: [fullOf(1, [cell(1, "a")])], carried: "of 1" },
    ]);
    expect(brake.isOn).toBe(false);
    expect(brake.deadlineMs()).toBe(Infinity);
  });

  test("ten seconds of rows may leave at once, and one transaction of any size", () => {
    const brake = createBrake({ rowsPerSecondMin: 10, rowsPerSecondMax: 10 });
    const cells = Array.from({ length: 1_000 }, (_, key) => cell(key, "a"));
    offer(brake, fullOf(1, cells), 0);
    expect(brake.drain()).toHaveLength(1);
    offer(brake, fullOf(2, [cell(0, "a")]), 0);
    expect(brake.drain()).toEqual([]);
    // What it owes is bounded by ten seconds as well.
    runUntil(brake, { fromMs: 0, untilMs: 10_500 });
    expect(versionsIn(brake.drain())).toEqual([2]);
  });
});

describe("above its limit", () => {
  test("of a cell only the newest value leaves, and the versions before it as one Empty", () => {
    const brake = exhausted();
    for (let version = 2; version <= 9; version += 1)
      offer(brake, fullOf(version, [cell(1, "a")]), 0);
    expect(brake.drain()).toEqual([]);
    expect(brake.rows).toBe(1);
    runUntil(brake, { fromMs: 0, untilMs: 2_000 });
    expect(brake.drain()).toEqual([
      { kind: "empty", versions: { start: 2, end: 8 }, ts: 16n },
      { kind: "version", changesets: [fullOf(9, [cell(1, "a")])], carried: "of 9" },
    ]);
  });

  test("a version of which a part was overwritten leaves whole", () => {
    const brake = exhausted();
    const second = fullOf(2, [cell(1, "a"), cell(1, "b"), cell(2, "a")]);
    offer(brake, second, 0);
    offer(brake, fullOf(3, [cell(1, "a")]), 0);
    runUntil(brake, { fromMs: 0, untilMs: 5_000 });
    expect(brake.drain()).toEqual([
      { kind: "version", changesets: [second], carried: "of 2" },
      { kind: "version", changesets: [fullOf(3, [cell(1, "a")])], carried: "of 3" },
    ]);
  });

  test("a version is told to be empty when all that took its cells has left, not before", () => {
    const brake = exhausted();
    offer(brake, fullOf(2, [cell(1, "a")]), 0);
    offer(brake, fullOf(3, [cell(2, "a")]), 0);
    offer(brake, fullOf(4, [cell(1, "a")]), 0);
    offer(brake, fullOf(5, [cell(1, "a"), cell(3, "a")]), 0);
    runUntil(brake, { fromMs: 0, untilMs: 5_000 });
    expect(brake.drain()).toMatchObject([
      { changesets: [{ version: 3 }] },
      { kind: "empty", versions: { start: 2, end: 2 } },
      { kind: "empty", versions: { start: 4, end: 4 } },
      { changesets: [{ version: 5 }] },
    ]);
  });

  test("and when that is kept: until then it is asked for", () => {
    let keptUpTo = 0;
    const brake = exhausted({}, (version) => version <= keptUpTo);
    for (const version of [2, 3, 4]) offer(brake, fullOf(version, [cell(1, "a")]), 0);
    expect(brake.unkept).toBe(0);
    runUntil(brake, { fromMs: 0, untilMs: 12_000 });
    expect(brake.drain()).toMatchObject([{ changesets: [{ version: 4 }] }]);
    expect(brake.unkept).toBe(4);
    keptUpTo = 3;
    brake.noteKept();
    expect(brake.drain()).toEqual([]);
    keptUpTo = 4;
    brake.noteKept();
    expect(brake.drain()).toMatchObject([{ kind: "empty", versions: { start: 2, end: 3 } }]);
    expect(brake.unkept).toBe(0);
    runUntil(brake, { fromMs: 12_000, untilMs: 30_000 });
    expect(brake.isOn).toBe(false);
  });

  test("what is never kept is left to sync, and the brake comes to rest", () => {
    const brake = exhausted({}, () => false);
    for (const version of [2, 3]) offer(brake, fullOf(version, [cell(1, "a")]), 0);
    runUntil(brake, { fromMs: 0, untilMs: 60_000 });
    expect(brake.drain()).toMatchObject([{ changesets: [{ version: 3 }] }]);
    expect(brake.isOn).toBe(false);
  });

  test("rows leave at the limit, oldest first", () => {
    const brake = exhausted({ rowsPerSecondMin: 5, rowsPerSecondMax: 5 });
    for (let key = 1; key <= 100; key += 1) offer(brake, fullOf(1 + key, [cell(key, "a")]), 0);
    runUntil(brake, { fromMs: 0, untilMs: 10_000 });
    const versions = versionsIn(brake.drain());
    expect(versions.length).toBeGreaterThanOrEqual(45);
    expect(versions.length).toBeLessThanOrEqual(51);
    expect(versions).toEqual(versions.map((_, at) => at + 2));
  });

  test("every row of a loop of writes has its turn", () => {
    // Method: 50 rows rewritten each 100 ms for five minutes, at a limit whose period is a multiple.
    const brake = exhausted({ rowsPerSecondMin: 5, rowsPerSecondMax: 5 });
    const keys = new Set<number>();
    let version = 1;
    for (let atMs = 0; atMs < 300_000; atMs += 2) {
      version += 1;
      offer(brake, fullOf(version, [cell((atMs / 2) % 50, "a")]), atMs);
      brake.tick(atMs);
      for (const key of keysIn(brake.drain())) keys.add(key);
    }
    expect(keys.size).toBe(50);
  });

  test("a delete leaves at once, and nothing of its row follows", () => {
    const brake = exhausted();
    offer(brake, fullOf(2, [cell(1, "a")]), 0);
    offer(brake, fullOf(3, [cell(2, "a")]), 0);
    offer(brake, fullOf(4, [deletion(1)]), 0, { isUrgent: true });
    expect(versionsIn(brake.drain())).toEqual([4]);
    runUntil(brake, { fromMs: 0, untilMs: 2_000 });
    expect(brake.drain()).toMatchObject([
      { kind: "empty", versions: { start: 2, end: 2 } },
      { kind: "version", carried: "of 3" },
    ]);
  });

  test("an urgent change takes along what waits of its row, so that nobody gets half of it", () => {
    const brake = exhausted();
    offer(brake, fullOf(2, [cell(1, "a"), cell(1, "state")]), 0);
    offer(brake, fullOf(3, [cell(2, "a")]), 0);
    offer(brake, fullOf(4, [cell(1, "state")]), 0, { isUrgent: true });
    const released = brake.drain();
    expect(versionsIn(released)).toEqual([2, 4]);
  });

  test("what has waited for 40 s is sync's", () => {
    const brake = exhausted({ rowsPerSecondMin: 1, rowsPerSecondMax: 1 });
    for (let key = 1; key <= 100; key += 1) offer(brake, fullOf(1 + key, [cell(key, "a")]), 0);
    runUntil(brake, { fromMs: 0, untilMs: 41_000 });
    expect(brake.rows).toBe(0);
    expect(brake.drain().length).toBeLessThan(45);
    runUntil(brake, { fromMs: 41_000, untilMs: 60_000 });
    expect(brake.isOn).toBe(false);
  });

  test("sync hears of a newer head each ten seconds, and of the true one afterwards", () => {
    const brake = exhausted({ rowsPerSecondMin: 1, rowsPerSecondMax: 1 });
    expect(brake.headForSync(1, 0)).toBe(1);
    for (let key = 1; key <= 30; key += 1) offer(brake, fullOf(1 + key, [cell(key, "a")]), 0);
    expect(brake.headForSync(31, 9_999)).toBe(1);
    expect(brake.headForSync(31, 10_000)).toBe(31);
    offer(brake, fullOf(32, [cell(1, "a")]), 10_000);
    expect(brake.headForSync(32, 19_999)).toBe(31);
    brake.flush();
    expect(brake.headForSync(32, 19_999)).toBe(32);
  });
});

describe("the limit", () => {
  test("follows four times the history between its bounds, and no time of braking", () => {
    const brake = createBrake({ rowsPerSecondMin: 10, rowsPerSecondMax: 100 });
    expect(brake.limit).toBe(100);
    brake.tick(0);
    offer(brake, fullOf(1, [cell(1, "a")]), 0);
    offer(brake, fullOf(2, [cell(1, "a")]), 3_600_000);
    expect(brake.limit).toBe(10);
    // Five rows a second for an hour, then a storm of an hour.
    let version = 2;
    let atMs = 3_600_000;
    for (; atMs < 7_200_000; atMs += 200) offer(brake, fullOf(++version, [cell(1, "a")]), atMs);
    expect(brake.limit).toBeGreaterThan(18);
    expect(brake.limit).toBeLessThan(22);
    for (; atMs < 10_800_000; atMs += 20) {
      offer(brake, fullOf(++version, [cell(1, "a")]), atMs);
      brake.tick(atMs);
    }
    expect(brake.isOn).toBe(true);
    expect(brake.limit).toBeLessThan(25);
  });

  test("is none when the brake is switched off", () => {
    const brake = createBrake({ isEnabled: false });
    for (let version = 1; version <= 5_000; version += 1)
      offer(brake, fullOf(version, [cell(1, "a")]), 0);
    expect(brake.drain()).toHaveLength(5_000);
  });
});

test("whatever is written: what left and what is urgent give the rows that the origin has", () => {
  // Method: the newest change of each cell is worked out from all versions, and from those released.
  const write = fc.record({
    key: fc.integer({ min: 0, max: 4 }),
    cid: fc.constantFrom("a", "b", "c"),
    isDelete: fc.boolean(),
    afterMs: fc.integer({ min: 0, max: 300 }),
  });
  const versions = fc.array(fc.array(write, { minLength: 1, maxLength: 4 }), { maxLength: 60 });
  fc.assert(
    fc.property(versions, (drawn) => {
      const brake = exhausted({ rowsPerSecondMin: 3, rowsPerSecondMax: 3 });
      const causal = new Map<number, number>();
      const columns = new Map<string, number>();
      const all: FullChangeset[] = [];
      let nowMs = 0;
      for (const [at, writes] of drawn.entries()) {
        const changes = writes.slice(0, writes[0]?.isDelete === true ? 1 : 4).map((each, seq) => {
          const present = causal.get(each.key) ?? 0;
          const isDelete = writes[0]?.isDelete === true && present % 2 === 1;
          const cl = isDelete || present % 2 === 0 ? present + 1 : present;
          causal.set(each.key, cl);
          if (isDelete) return { ...deletion(each.key), cl, seq };
          const name = `${each.key} ${each.cid}`;
          columns.set(name, (columns.get(name) ?? 0) + 1);
          return { ...cell(each.key, each.cid), colVersion: columns.get(name) ?? 1, cl, seq };
        });
        const changeset = fullOf(at + 2, changes);
        all.push(changeset);
        nowMs += writes[0]?.afterMs ?? 0;
        brake.tick(nowMs);
        offer(brake, changeset, nowMs, { isUrgent: changes.some(({ cl }) => cl % 2 === 0) });
      }
      brake.flush();
      const released = brake.drain();
      expect(rowsOf(fullsIn(released))).toEqual(rowsOf(all));
      const told = released.flatMap((each) =>
        each.kind === "version"
          ? [each.changesets[0]!.version]
          : Array.from(
              { length: each.versions.end - each.versions.start + 1 },
              (_, at) => each.versions.start + at,
            ),
      );
      expect(told.sort((one, other) => one - other)).toEqual(all.map(({ version }) => version));
    }),
    { numRuns: 300 },
  );
});

function createBrake(
  config: Partial<BrakeConfig> = {},
  isKept: (version: number) => boolean = () => true,
): Brake<string> {
  const stats = { rowsHeld: 0, rowsCoalesced: 0, rowsLeftToSync: 0 };
  const all = { isEnabled: true, rowsPerSecondMin: 1, rowsPerSecondMax: 200, ...config };
  return new Brake(all, { prng: createPrng(1), stats, isKept });
}

/** A brake whose burst is used up by version 1. */
function exhausted(
  config: Partial<BrakeConfig> = {},
  isKept?: (version: number) => boolean,
): Brake<string> {
  const brake = createBrake({ rowsPerSecondMin: 1, rowsPerSecondMax: 1, ...config }, isKept);
  const rows = Math.ceil(10 * brake.limit);
  const cells = Array.from({ length: rows }, (_, key) => cell(1_000 + key, "a"));
  offer(brake, fullOf(1, cells), 0);
  brake.drain();
  return brake;
}

function offer(
  brake: Brake<string>,
  changeset: FullChangeset,
  nowMs: number,
  { isUrgent = false }: { isUrgent?: boolean } = {},
): void {
  const carried = `of ${changeset.version}`;
  brake.offer({ changesets: [changeset], carried, isUrgent, isWhole: true }, nowMs);
}

function runUntil(brake: Brake<string>, of: { fromMs: number; untilMs: number }): void {
  for (let nowMs = of.fromMs; nowMs <= of.untilMs; nowMs += 10) brake.tick(nowMs);
}

function fullsIn(released: readonly Released<string>[]): FullChangeset[] {
  return released.flatMap((each) => (each.kind === "version" ? each.changesets : []));
}

function versionsIn(released: readonly Released<string>[]): number[] {
  return fullsIn(released).map(({ version }) => version);
}

function keysIn(released: readonly Released<string>[]): number[] {
  return fullsIn(released).flatMap(({ changes }) => changes.map(({ pk }) => pk[2] ?? 0));
}

/** Each row as a merge of these changesets leaves it: by causal length, then by column version. */
function rowsOf(changesets: readonly FullChangeset[]): Map<string, string> {
  const cells = new Map<string, ColumnChange>();
  const causal = new Map<number, number>();
  for (const change of changesets.flatMap(({ changes }) => changes)) {
    const key = change.pk[2] ?? 0;
    causal.set(key, Math.max(causal.get(key) ?? 0, change.cl));
    const name = `${key} ${change.cid}`;
    const known = cells.get(name);
    const isNewer =
      known === undefined ||
      change.cl > known.cl ||
      (change.cl === known.cl && change.colVersion > known.colVersion);
    if (isNewer) cells.set(name, change);
  }
  const rows = new Map<string, string>();
  for (const [name, change] of [...cells].sort(([one], [other]) => (one < other ? -1 : 1))) {
    const isAlive = causal.get(change.pk[2] ?? 0) === change.cl;
    if (isAlive) rows.set(name, `${change.cl} ${change.colVersion}`);
  }
  return rows;
}

function cell(key: number, cid: string): ColumnChange {
  const pk = Uint8Array.of(1, 9, key & 255, key >> 8);
  return { table: "machines", pk, cid, val: "x", colVersion: 1, seq: 0, cl: 1 };
}

function deletion(key: number): ColumnChange {
  return { ...cell(key, "-1"), val: null, colVersion: 2, cl: 2 };
}

function fullOf(version: number, changes: readonly ColumnChange[]): FullChangeset {
  const numbered = changes.map((change, seq) => ({ ...change, seq }));
  const lastSeq = numbered.length - 1;
  const seqs = { start: 0, end: lastSeq };
  return { kind: "full", actorId: ACTOR_A, version, changes: numbered, seqs, lastSeq, ts: 16n };
}
