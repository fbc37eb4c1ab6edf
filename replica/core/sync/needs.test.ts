import fc from "fast-check";
import { describe, expect, test } from "vitest";

import type { ActorBook, ActorId, FullChangeset, SyncNeed } from "../../types.ts";
import { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import { type ActorNeeds, computeNeeds, countNeeds, RoundPlan } from "./needs.ts";
import { RangeSet } from "#base/range-set.ts";

describe("computing needs", () => {
  test("an actor never heard of is asked from 1 to the server's head", () => {
    const server = books([[A, [1, 7]]]);
    expect(plain(needsOf(new Bookkeeping(), server))).toEqual([[A, [{ start: 1, end: 7 }], []]]);
  });

  test("our own versions above our head are not asked back, unless they are in doubt", () => {
    const server = books([[US, [1, 7]]]);
    expect(needsOf(new Bookkeeping(), server).size).toBe(0);
    const [ours, theirs] = [new Bookkeeping().syncState(US), server.syncState(THEM)];
    expect(plain(computeNeeds(ours, theirs, 100))).toEqual([[US, [{ start: 1, end: 7 }], []]]);
    expect(plain(computeNeeds(ours, theirs, 5))).toEqual([[US, [{ start: 1, end: 5 }], []]]);
  });

  test("a gap that a loss has left in our own versions is asked like any", () => {
    const ours = books([[US, [3, 5]]]);
    const server = books([[US, [1, 7]]]);
    expect(plain(needsOf(ours, server))).toEqual([[US, [{ start: 1, end: 2 }], []]]);
  });

  test("a gap is asked only where the server has it and never beyond its head", () => {
    const ours = books([[A, [20, 20]]]);
    const server = books([
      [A, [1, 5]],
      [A, [9, 12]],
    ]);
    expect(plain(needsOf(ours, server))).toEqual([
      [
        A,
        [
          { start: 1, end: 5 },
          { start: 9, end: 12 },
        ],
        [],
      ],
    ]);
  });

  test("of a version that both hold in part, only seqs that the server has are asked", () => {
    const ours = new Bookkeeping();
    ours.recordPartial(chunk(1, [0, 3]));
    const server = new Bookkeeping();
    server.recordPartial(chunk(1, [2, 6]));
    expect(plain(needsOf(ours, server))).toEqual([[A, [], [[1, [{ start: 4, end: 6 }]]]]]);
  });

  test("a server with head 0 is asked nothing", () => {
    const theirs = { ...new Bookkeeping().syncState(THEM), heads: new Map([[A, 0]]) };
    expect(computeNeeds(new Bookkeeping().syncState(US), theirs).size).toBe(0);
  });

  test("a hostile state costs no more than its length", () => {
    const head = Number.MAX_SAFE_INTEGER;
    const need = new Map([
      [
        A,
        [
          { start: 9, end: 3 },
          { start: 5, end: head },
        ],
      ],
    ]);
    const base = new Bookkeeping().syncState(THEM);
    const theirs = { ...base, heads: new Map([[A, head]]), need };
    const needs = computeNeeds(new Bookkeeping().syncState(US), theirs);
    expect(plain(needs)).toEqual([[A, [{ start: 1, end: 4 }], []]]);
  });

  test("needs are every version that we lack and the server has, and no other", () => {
    fc.assert(
      fc.property(anyBooks, anyBooks, (ours, server) => {
        const needs = needsOf(ours, server);
        for (let version = 1; version <= 40; version += 1) {
          const one = { start: version, end: version };
          const isOurs = ours.contains(A, one);
          const isTheirs = server.contains(A, one);
          const actorNeeds = needs.get(A);
          const isAsked = actorNeeds?.full.contains(version) || actorNeeds?.partial.has(version);
          if (!isOurs && isTheirs) expect(isAsked).toBe(true);
          if (isOurs) expect(isAsked ?? false).toBe(false);
          if (version > server.head(A)) expect(isAsked ?? false).toBe(false);
        }
      }),
    );
  });

  test("answers to all needs leave nothing that the server could still give", () => {
    fc.assert(
      fc.property(anyBooks, anyBooks, (ours, server) => {
        for (const [actorId, { full, partial }] of needsOf(ours, server)) {
          for (const range of full) answer(ours, server, { actorId, ...range });
          for (const version of partial.keys()) {
            answer(ours, server, { actorId, start: version, end: version });
          }
        }
        expect(countNeeds(needsOf(ours, server))).toBe(0);
      }),
    );
  });
});

describe("sharing needs out", () => {
  test("pieces go newest first, at most the allowed number and width", () => {
    const plan = new RoundPlan();
    plan.addServer(1, full(1, 100));
    expect(plan.takeTurn(1, { needsMax: 2, pieceVersions: 10, versionsMax: 1000 })).toEqual([
      {
        actorId: A,
        needs: [fullNeed(91, 100), fullNeed(81, 90)],
        versions: [
          { start: 91, end: 100 },
          { start: 81, end: 90 },
        ],
      },
    ]);
  });

  test("what one server was asked, another is not, until it is given back", () => {
    const plan = new RoundPlan();
    plan.addServer(1, full(1, 10));
    plan.addServer(2, full(1, 10));
    plan.takeTurn(1, { needsMax: 1, pieceVersions: 10, versionsMax: 10 });
    expect(plan.hasNeeds(2)).toBe(false);
    plan.removeServer(1);
    plan.giveBack(A, [{ start: 3, end: 4 }]);
    const turn = plan.takeTurn(2, { needsMax: 1, pieceVersions: 10, versionsMax: 10 });
    expect(turn.map((request) => request.needs)).toEqual([[fullNeed(3, 4)]]);
  });

  test("turns of any servers in any order ask each version exactly once", () => {
    const turnOf = fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 30 }));
    fc.assert(
      fc.property(fc.array(turnOf, { maxLength: 20 }), (turns) => {
        const plan = new RoundPlan();
        plan.addServer(1, full(1, 100));
        plan.addServer(2, full(20, 80));
        plan.addServer(3, full(50, 120));
        const asked = new Map<number, number>();
        const drainAll = [1, 2, 3].flatMap((id) => Array.from({ length: 40 }, () => [id, 30]));
        for (const [sessionId = 1, versionsMax = 1] of [...turns, ...drainAll]) {
          const limits = { needsMax: 3, pieceVersions: 7, versionsMax };
          for (const { versions } of plan.takeTurn(sessionId, limits)) {
            for (const { start, end } of versions) {
              for (let at = start; at <= end; at += 1) asked.set(at, (asked.get(at) ?? 0) + 1);
            }
          }
        }
        expect(asked.size).toBe(120);
        expect([...asked.values()].every((times) => times === 1)).toBe(true);
      }),
    );
  });

  test("actors take turns", () => {
    const plan = new RoundPlan();
    plan.addServer(1, new Map([...full(1, 100), ...full(1, 100, B)]));
    const limits = { needsMax: 1, pieceVersions: 10, versionsMax: 10 };
    const order = [1, 2, 3, 4].flatMap(() => plan.takeTurn(1, limits).map((r) => r.actorId));
    expect(order).toEqual([A, B, A, B]);
  });
});

const A = "aaaaaaaa-0000-4000-8000-000000000000";
const B = "bbbbbbbb-0000-4000-8000-000000000000";
const US = "11111111-0000-4000-8000-000000000000";
const THEM = "22222222-0000-4000-8000-000000000000";
const LAST_SEQ = 9;

const anyRecord = fc.record({
  version: fc.integer({ min: 1, max: 30 }),
  width: fc.nat({ max: 5 }),
  seqs: fc.option(fc.tuple(fc.nat({ max: 5 }), fc.nat({ max: 4 }))),
});
const anyBooks = fc.array(anyRecord, { maxLength: 12 }).map((records) => {
  const made = new Bookkeeping();
  for (const { version, width, seqs } of records) {
    if (seqs === null) {
      made.recordComplete(A, { start: version, end: version + width });
      continue;
    }
    const part = chunk(version, [seqs[0], seqs[0] + seqs[1]]);
    // As the store does: what is whole is not partial.
    if (made.classify(part).startsWith("complete")) {
      made.recordComplete(A, { start: version, end: version });
    } else made.recordPartial(part);
  }
  return made;
});

function needsOf(ours: Bookkeeping, server: Bookkeeping): Map<ActorId, ActorNeeds> {
  return computeNeeds(ours.syncState(US), server.syncState(THEM));
}

/** What a server would answer to a question about whole versions, recorded as received. */
function answer(
  ours: Bookkeeping,
  server: Bookkeeping,
  asked: { actorId: ActorId; start: number; end: number },
): void {
  for (let version = asked.start; version <= asked.end; version += 1) {
    const one = { start: version, end: version };
    const partial = server.partial(asked.actorId, version);
    if (server.contains(asked.actorId, one)) ours.recordComplete(asked.actorId, one);
    for (const seqs of partial?.seqs ?? []) {
      const part = chunk(version, [seqs.start, seqs.end]);
      const isWhole = ours.classify(part) === "completes";
      if (isWhole) ours.recordComplete(asked.actorId, one);
      else ours.recordPartial(part);
    }
  }
}

function books(known: readonly (readonly [ActorId, readonly [number, number]])[]): Bookkeeping {
  const made = new Bookkeeping(new Map<ActorId, ActorBook>());
  for (const [actorId, [start, end]] of known) made.recordComplete(actorId, { start, end });
  return made;
}

function full(start: number, end: number, actorId = A): Map<ActorId, ActorNeeds> {
  return new Map([[actorId, { full: RangeSet.from([{ start, end }]), partial: new Map() }]]);
}

function fullNeed(start: number, end: number): SyncNeed {
  return { kind: "full", versions: { start, end } };
}

function plain(needs: Map<ActorId, ActorNeeds>): unknown[] {
  return [...needs].map(([actorId, each]) => [actorId, each.full.ranges, [...each.partial]]);
}

function chunk(version: number, [start, end]: readonly [number, number]): FullChangeset {
  const lastSeq = LAST_SEQ;
  return {
    kind: "full",
    actorId: A,
    version,
    changes: [],
    seqs: { start, end },
    lastSeq,
    ts: 1n,
  };
}
