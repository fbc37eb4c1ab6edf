import { expect, test } from "vitest";
import { ChangesetHolds, NO_CHANGESET_HOLDS, readChangesetHolds } from "./changeset-holds.ts";

const HOLD_MS = 1_000;
const CRUMB = { what: "changeset", actor: "a", version: 7, table: "machines" };

test("a changeset is held from its second loss on, longer each time, up to sixteen times", () => {
  const holds = new ChangesetHolds(NO_CHANGESET_HOLDS, { holdMs: HOLD_MS });
  expect(holds.blame({ stallId: "1", lostMs: 0, crumb: CRUMB })).toBeNull();
  expect(holds.held).toEqual([]);
  const forMs = Array.from({ length: 7 }, (_, at) => {
    const held = holds.blame({ stallId: String(at + 2), lostMs: 100, crumb: CRUMB });
    return (held?.expiresMs ?? Number.NaN) - 100;
  });
  expect(forMs).toEqual([1, 2, 4, 8, 16, 16, 16].map((times) => times * HOLD_MS));
  expect(holds.held).toMatchObject([{ id: "s1", actorId: "a", version: 7, stalls: 8 }]);
});

test("what was judged, other changesets and other work are nobody's second loss", () => {
  const holds = new ChangesetHolds(NO_CHANGESET_HOLDS, { holdMs: HOLD_MS });
  holds.blame({ stallId: "1", lostMs: 0, crumb: CRUMB });
  holds.blame({ stallId: "1", lostMs: 0, crumb: CRUMB });
  holds.blame({ stallId: "2", lostMs: 0, crumb: { ...CRUMB, version: 8 } });
  holds.blame({ stallId: "3", lostMs: 0, crumb: { ...CRUMB, what: "row" } });
  holds.blame({ stallId: "4", lostMs: 0, crumb: null });
  holds.blame({ stallId: "5", lostMs: 0, crumb: { ...CRUMB, version: -1 } });
  expect(holds.held).toEqual([]);
});

test("a hold ends in time or by the operator, and never when it was dropped", () => {
  const holds = new ChangesetHolds(NO_CHANGESET_HOLDS, { holdMs: HOLD_MS });
  const hold = (version: number): void => {
    for (const stallId of [`${version}a`, `${version}b`]) {
      holds.blame({ stallId, lostMs: 0, crumb: { ...CRUMB, version } });
    }
  };
  for (const version of [1, 2, 3]) hold(version);
  expect(holds.deadlineMs).toBe(HOLD_MS);
  expect(holds.release("s1")).toMatchObject({ version: 1 });
  expect(holds.drop("s2")).toMatchObject({ version: 2 });
  expect(holds.drop("s9")).toBeNull();
  expect(holds.expire(HOLD_MS - 1)).toBe(false);
  expect(holds.expire(HOLD_MS)).toBe(true);
  expect(holds.held.map(({ id }) => id)).toEqual(["s2"]);
  expect(holds.deadlineMs).toBe(Infinity);
});

test("a kept state is read back, and nothing else passes for one", () => {
  const holds = new ChangesetHolds(NO_CHANGESET_HOLDS, { holdMs: HOLD_MS });
  holds.blame({ stallId: "1", lostMs: 0, crumb: CRUMB });
  const kept: unknown = JSON.parse(JSON.stringify(holds.state));
  expect(readChangesetHolds(kept)).toEqual(holds.state);
  for (const bad of [
    null,
    1,
    {},
    { ...holds.state, format: 2 },
    { ...holds.state, blamed: [{}] },
  ]) {
    expect(readChangesetHolds(bad)).toBeNull();
  }
});
