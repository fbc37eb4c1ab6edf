import fc from "fast-check";
import { expect, test } from "vitest";
import {
  NO_QUARANTINE,
  Quarantine,
  readState,
  readSuspect,
  type ChangeName,
  type Suspect,
} from "./quarantine.ts";

const HOUR = 3_600_000;
const FIRST: ChangeName = {
  actorId: "actor-1",
  version: 7,
  table: "machines",
  key: "m1",
  app: "shop",
};

test("a change that stalled is held for the set time, and its end is told", () => {
  const quarantine = create();
  quarantine.blame({ stallId: "1", stalledMs: 1000, suspect: row(FIRST) });
  expect(quarantine.state.holds).toMatchObject([
    { id: "c1", change: FIRST, isDown: false, previous: { id: "m1" }, expiresMs: 1000 + HOUR },
  ]);
  expect(quarantine.drain()).toMatchObject([{ kind: "held" }]);
  expect(quarantine.deadlineMs).toBe(1000 + HOUR);
  expect(quarantine.expire(999 + HOUR)).toBe(false);
  expect(quarantine.expire(1000 + HOUR)).toBe(true);
  expect(quarantine.state.holds).toEqual([]);
  expect(quarantine.drain()).toEqual([{ kind: "ended", id: "c1", why: "expired", change: FIRST }]);
});

test("evidence is judged once, whatever starts come after", () => {
  const quarantine = create();
  quarantine.blame({ stallId: "2", stalledMs: 1000, suspect: row(FIRST) });
  quarantine.release("c1");
  quarantine.blame({ stallId: "2", stalledMs: 1000, suspect: row(FIRST) });
  quarantine.blame({ stallId: "1", stalledMs: 900, suspect: row(FIRST) });
  expect(quarantine.state.holds).toEqual([]);
});

test("a change that stalls again is held twice as long, and is no second change of its origin", () => {
  const quarantine = create();
  quarantine.blame({ stallId: "1", stalledMs: 0, suspect: row(FIRST) });
  quarantine.expire(HOUR);
  quarantine.blame({ stallId: "2", stalledMs: HOUR, suspect: row(FIRST) });
  expect(quarantine.state.holds).toMatchObject([{ stalls: 2, expiresMs: HOUR + 2 * HOUR }]);
  expect(quarantine.state.origins).toEqual([]);
});

test("a second change of one origin holds the origin; one of another origin does not", () => {
  const quarantine = create();
  quarantine.blame({ stallId: "1", stalledMs: 0, suspect: row(FIRST) });
  const foreign = { ...FIRST, actorId: "actor-2", key: "m2" };
  quarantine.blame({ stallId: "2", stalledMs: 10, suspect: row(foreign) });
  expect(quarantine.state.origins).toEqual([]);
  // A newer version of the same row was let through, and stalled too.
  quarantine.blame({ stallId: "3", stalledMs: 20, suspect: row({ ...FIRST, version: 8 }) });
  expect(quarantine.state.origins).toMatchObject([{ actorId: "actor-1", expiresMs: 20 + HOUR }]);
  expect(quarantine.state.holds.map(({ change }) => [change.key, change.version])).toEqual([
    ["m2", 7],
    ["m1", 8],
  ]);
});

test("two stalls that are farther apart than a hold do not hold the origin", () => {
  const quarantine = create();
  quarantine.blame({ stallId: "1", stalledMs: 0, suspect: row(FIRST) });
  const later = row({ ...FIRST, key: "m9" });
  quarantine.blame({ stallId: "2", stalledMs: HOUR + 1, suspect: later });
  expect(quarantine.state.origins).toEqual([]);
});

test("a batch makes the next start cautious, and the row it then names is held", () => {
  const quarantine = create();
  const batch = { kind: "batch", untilVersion: 90 } as const;
  const before = { what: "row", actor: "a", version: 7, table: "machines", key: "m1" };
  const crumbs = [{ what: "batch" }, { ...before, previous: { id: "m1", region: "exact" } }];
  quarantine.blame({ stallId: "1", stalledMs: 0, suspect: batch, crumbs });
  expect(quarantine.state).toMatchObject({ cautiousUntil: 90, holds: [] });
  // The next start's table had less of the row than the one that stalled.
  const named = { ...row(FIRST), previous: null };
  quarantine.blame({ stallId: "2", stalledMs: 1, suspect: named });
  expect(quarantine.state.holds).toMatchObject([{ previous: { region: "exact" } }]);
  quarantine.cautionOver();
  expect(quarantine.state).toMatchObject({ cautiousUntil: null, images: [] });
});

test("a dropped change stays out for good, until its row has a newer version", () => {
  const quarantine = create();
  quarantine.blame({ stallId: "1", stalledMs: 0, suspect: row(FIRST) });
  expect(quarantine.drop("c1")).toBe(true);
  expect(quarantine.deadlineMs).toBe(Infinity);
  expect(quarantine.expire(Number.MAX_SAFE_INTEGER)).toBe(false);
  quarantine.superseded("c1");
  expect(quarantine.state.holds).toEqual([]);
  expect([quarantine.drop("c1"), quarantine.release("c1")]).toEqual([false, false]);
});

test("a freeze is kept and told, and ended once; a file of a build that knew none is read", () => {
  const quarantine = create();
  const freeze = { stallId: "9", sinceMs: 5, peers: 7 };
  quarantine.freeze(freeze);
  expect(quarantine.drain()).toEqual([{ kind: "frozen", freeze }]);
  expect(readState(JSON.parse(JSON.stringify(quarantine.state)))).toEqual(quarantine.state);
  expect(readState({ ...quarantine.state, frozen: { ...freeze, sinceMs: "5" } })).toBe(null);
  expect(quarantine.thaw("asked")).toBe(true);
  expect(quarantine.drain()).toEqual([{ kind: "thawed", why: "asked" }]);
  expect(quarantine.thaw("asked")).toBe(false);
  expect(quarantine.drain()).toEqual([]);
  expect(readState({ ...NO_QUARANTINE, frozen: undefined })).toEqual(NO_QUARANTINE);
});

test("what is kept is bounded, whatever stalls", () => {
  const quarantine = create();
  for (let at = 0; at < 500; at++) {
    const change = { ...FIRST, actorId: `a${at >> 1}`, key: `m${at}` };
    quarantine.blame({ stallId: `s${1000 + at}`, stalledMs: at, suspect: row(change) });
  }
  const { holds, origins, blamed } = quarantine.state;
  expect([holds.length, origins.length, blamed.length]).toEqual([100, 100, 100]);
  expect(holds.at(-1)?.change.key).toBe("m499");
});

test("a kept state is read as it was; anything else is refused, and nothing throws", () => {
  const quarantine = create();
  quarantine.blame({ stallId: "1", stalledMs: 0, suspect: row(FIRST) });
  quarantine.blame({ stallId: "2", stalledMs: 1, suspect: row({ ...FIRST, key: "m2" }) });
  const kept: unknown = JSON.parse(JSON.stringify(quarantine.state));
  expect(readState(kept)).toEqual(quarantine.state);
  for (const key of Object.keys(quarantine.state)) {
    const isText = key === "lastStallId";
    const broken = { ...quarantine.state, [key]: isText ? 5 : "?" };
    expect(readState(broken), key).toBe(null);
  }
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      readState(value);
      readSuspect(value);
    }),
  );
});

test("a breadcrumb of anything but a row or a batch names no change", () => {
  expect(readSuspect({ what: "request", line: "GET / HTTP/1.1" })).toBe(null);
  expect(readSuspect(null)).toBe(null);
  expect(readSuspect({ what: "row", actor: "a", version: 3, table: "t", key: "k" })).toEqual({
    kind: "row",
    change: { actorId: "a", version: 3, table: "t", key: "k", app: "" },
    isDown: false,
  });
});

function create(): Quarantine {
  return new Quarantine(NO_QUARANTINE, { holdMs: HOUR });
}

function row(change: ChangeName): Suspect {
  return { kind: "row", change, isDown: false, previous: { id: change.key } };
}
