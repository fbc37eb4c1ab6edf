import { describe, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import type { Actor } from "./actor.ts";
import { type Claim, MemberList, supersedes } from "./member-list.ts";
import type { MemberState } from "./packet.ts";

const STATES: readonly MemberState[] = ["alive", "suspect", "down"];
const INCARNATIONS = [0, 1, 2];

/**
 * Which news about a known identity are taken, over every pair of states and every relation of
 * incarnations: the table of the SWIM paper, section 4.2.
 */
const TAKEN: Record<
  MemberState,
  Record<MemberState, "never" | "higher" | "notLower" | "always">
> = {
  alive: { alive: "higher", suspect: "notLower", down: "always" },
  suspect: { alive: "higher", suspect: "higher", down: "always" },
  down: { alive: "never", suspect: "never", down: "never" },
};

describe.each(STATES)("a member known as %s", (known) => {
  test.each(STATES)("takes news of %s as the table of precedence says", (news) => {
    const rule = TAKEN[known][news];
    for (const knownAt of INCARNATIONS) {
      for (const newsAt of INCARNATIONS) {
        const isExpected =
          rule === "always" ||
          (rule === "higher" && newsAt > knownAt) ||
          (rule === "notLower" && newsAt >= knownAt);
        const isTaken = supersedes(
          { state: known, incarnation: knownAt },
          { state: news, incarnation: newsAt },
        );
        expect({ knownAt, newsAt, isTaken }).toEqual({ knownAt, newsAt, isTaken: isExpected });

        const list = createList();
        list.apply({ actor: actor(1), state: known, incarnation: knownAt }, 0);
        const outcome = list.apply({ actor: actor(1), state: news, incarnation: newsAt }, 1);
        expect(outcome.kind).toBe(isExpected ? "changed" : "unchanged");
        const left = isExpected ? { state: news, incarnation: newsAt } : { state: known };
        expect(list.get(actor(1).id)).toMatchObject(left);
      }
    }
  });
});

test("of two claims at most one supersedes the other, so any order of news ends alike", () => {
  const claims: Claim[] = STATES.flatMap((state) =>
    INCARNATIONS.map((incarnation) => ({ state, incarnation })),
  );
  for (const one of claims) {
    for (const other of claims) {
      expect(supersedes(one, other) && supersedes(other, one)).toBe(false);
      for (const third of claims) {
        expect(settle([one, other, third]).state).toBe(settle([third, other, one]).state);
      }
    }
  }
});

test("news of an older identity change nothing, and say that it is not active", () => {
  const list = createList();
  list.apply({ actor: actor(1, 100n), state: "alive", incarnation: 0 }, 0);
  expect(list.apply({ actor: actor(1, 50n), state: "alive", incarnation: 9 }, 1)).toMatchObject({
    kind: "unchanged",
    isActive: false,
    better: { actor: actor(1, 100n) },
  });
});

test.each(STATES)("a newer identity replaces a %s one, whatever its incarnation", (state) => {
  const list = createList();
  list.apply({ actor: actor(1, 100n), state, incarnation: 9 }, 0);
  list.apply({ actor: actor(1, 200n), state: "alive", incarnation: 0 }, 5);
  expect(list.get(actor(1).id)).toEqual({
    actor: actor(1, 200n),
    state: "alive",
    incarnation: 0,
    sinceMs: 5,
  });
});

test("the state of a member is dated from its beginning, not from its last confirmation", () => {
  const list = createList();
  list.apply({ actor: actor(1), state: "alive", incarnation: 0 }, 10);
  list.apply({ actor: actor(1), state: "alive", incarnation: 1 }, 20);
  expect(list.get(actor(1).id)?.sinceMs).toBe(10);
});

test("each active member is probed once per round, in another order each time", () => {
  const list = createList();
  for (let index = 1; index <= 8; index += 1) {
    list.apply({ actor: actor(index), state: "alive", incarnation: 0 }, 0);
  }
  list.apply({ actor: actor(8), state: "down", incarnation: 0 }, 0);
  list.nextToProbe();
  const rounds = new Set<string>();
  for (let skip = 1; skip < 7; skip += 1) list.nextToProbe();
  for (let round = 0; round < 5; round += 1) {
    const probed = Array.from({ length: 7 }, () => list.nextToProbe()?.actor.id);
    expect(new Set(probed).size).toBe(7);
    expect(probed).not.toContain(actor(8).id);
    rounds.add(probed.join());
  }
  expect(rounds.size).toBeGreaterThan(1);
});

test("a newcomer is probed within two rounds", () => {
  for (let seed = 0; seed < 20; seed += 1) {
    const list = createList(seed);
    for (let index = 1; index <= 5; index += 1) {
      list.apply({ actor: actor(index), state: "alive", incarnation: 0 }, 0);
    }
    for (let probe = 0; probe < 3; probe += 1) list.nextToProbe();
    list.apply({ actor: actor(6), state: "alive", incarnation: 0 }, 0);
    const probed = Array.from({ length: 12 }, () => list.nextToProbe()?.actor.id);
    expect(probed).toContain(actor(6).id);
  }
});

test("nobody is probed when all are down", () => {
  const list = createList();
  list.apply({ actor: actor(1), state: "down", incarnation: 0 }, 0);
  expect(list.nextToProbe()).toBeNull();
  expect(list.sampleActive(3)).toEqual([]);
  expect(list.sampleDown(3)).toHaveLength(1);
});

test("a full list drops its oldest down member, and refuses newcomers without one", () => {
  const list = new MemberList({ membersMax: 2, prng: createPrng(1) });
  list.apply({ actor: actor(1), state: "alive", incarnation: 0 }, 0);
  list.apply({ actor: actor(2), state: "down", incarnation: 0 }, 0);
  expect(list.apply({ actor: actor(3), state: "alive", incarnation: 0 }, 0).kind).toBe("changed");
  expect(list.get(actor(2).id)).toBeUndefined();
  expect(list.apply({ actor: actor(4), state: "alive", incarnation: 0 }, 0).kind).toBe("full");
});

test("only a down member is forgotten", () => {
  const list = createList();
  list.apply({ actor: actor(1), state: "alive", incarnation: 0 }, 0);
  list.forgetDown(actor(1).id);
  expect(list.active).toHaveLength(1);
  list.apply({ actor: actor(1), state: "down", incarnation: 0 }, 0);
  list.forgetDown(actor(1).id);
  expect(list.all).toEqual([]);
});

function settle(claims: readonly Claim[]): Claim {
  return claims.reduce((known, news) => (supersedes(known, news) ? news : known));
}

function createList(seed = 1): MemberList {
  return new MemberList({ membersMax: 100, prng: createPrng(seed) });
}

function actor(index: number, seconds = 1n): Actor {
  const id = `${String(index).padStart(8, "0")}-0000-4000-8000-000000000000`;
  return { id, addr: `10.0.0.${index}:8787`, ts: seconds << 32n, clusterId: 0, memberId: null };
}
