import fc from "fast-check";
import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { ACTOR_A } from "../../../tests/wire-fixtures.ts";
import type { ColumnChange, FullChangeset } from "../../types.ts";
import { decodeUniPayload, encodeBroadcast } from "../wire/uni-payload.ts";
import { Broadcast } from "./broadcast.ts";
import { maxTransmissions } from "./targets.ts";
import { BROADCAST_DEFAULTS } from "./types.ts";
import type { BroadcastConfig, BroadcastInput, BroadcastMember, BroadcastOutput } from "./types.ts";

test("in a small cluster an own change leaves at once to every other member", () => {
  const broadcast = createBroadcast({ members: members(3) });
  broadcast.handle({ kind: "committed", changesets: [own(1)] }, 0);
  const sends = sendsOf(broadcast.drain());
  expect(sends.map(({ target }) => target)).toEqual([address(1), address(2), address(3)]);
  expect(sends.map(({ frames }) => frames)).toEqual(
    [1, 2, 3].map(() => [encodeBroadcast(own(1), 0)]),
  );
});

test("in a large cluster an own change goes to all of ring 0 and three others", () => {
  const all = members(30).map((member, index) => ({ ...member, ring: index < 5 ? 0 : 3 }));
  const broadcast = createBroadcast({ members: all, smallClusterMembers: 8 });
  broadcast.handle({ kind: "committed", changesets: [own(1)] }, 0);
  const targets = sendsOf(broadcast.drain()).map(({ target }) => target);
  expect(new Set(targets).size).toBe(8);
  expect(targets).toEqual(expect.arrayContaining([1, 2, 3, 4, 5].map((n) => address(n))));
});

test("later rounds wait longer each, go to members not sent to yet, and end", () => {
  const broadcast = createBroadcast({ members: members(20), smallClusterMembers: 8 });
  broadcast.handle({ kind: "committed", changesets: [own(1)] }, 0);
  const targets: string[] = [];
  const waits: number[] = [];
  let now = 0;
  for (;;) {
    const sends = sendsOf(broadcast.drain());
    targets.push(...sends.map(({ target }) => target));
    for (const { id } of sends) broadcast.handle({ kind: "sent", id, ok: true }, now);
    const next = broadcast.deadlineMs();
    if (next === Number.POSITIVE_INFINITY) break;
    waits.push(next - now);
    now = next;
    broadcast.handle({ kind: "tick" }, now);
  }
  expect(maxTransmissions(20)).toBe(5);
  expect(waits).toEqual([100, 200, 300, 400]);
  expect(targets.length).toBe(15);
  expect(new Set(targets).size).toBe(15);
  expect(broadcast.stats).toMatchObject({ backlogEntries: 0, backlogBytes: 0, inFlight: 0 });
});

test("a single change never waits, a burst shares streams within ten milliseconds", () => {
  const broadcast = createBroadcast({ members: members(1) });
  for (let version = 1; version <= 5; version += 1) {
    broadcast.handle({ kind: "committed", changesets: [own(version)] }, 1);
  }
  expect(framesPerSend(broadcast.drain())).toEqual([1]);
  expect(broadcast.deadlineMs()).toBe(11);
  broadcast.handle({ kind: "tick" }, 10);
  expect(broadcast.drain()).toEqual([]);
  broadcast.handle({ kind: "tick" }, 11);
  expect(framesPerSend(broadcast.drain())).toEqual([4]);
});

test("a stream that is full leaves before its time and holds no more than the limit", () => {
  const broadcast = createBroadcast({ members: members(1), flushBytes: 3000 });
  broadcast.handle({ kind: "committed", changesets: [own(1)] }, 0);
  const changesets = [2, 3, 4, 5, 6, 7].map((version) => own(version, "x".repeat(1000)));
  broadcast.handle({ kind: "committed", changesets }, 0);
  expect(framesPerSend(broadcast.drain())).toEqual([1, 2, 2]);
});

test("urgent changes overtake all that is queued and do not wait to share a stream", () => {
  const broadcast = createBroadcast({ members: members(1) });
  broadcast.handle({ kind: "committed", changesets: [own(1)] }, 0);
  broadcast.handle({ kind: "committed", changesets: [own(2), own(3)] }, 1);
  broadcast.handle({ kind: "committed", changesets: [deletion(4)] }, 2);
  const sends = sendsOf(broadcast.drain());
  expect(sends.map(({ isUrgent, frames }) => [isUrgent, versionsOf(frames)])).toEqual([
    [true, [4]],
    [false, [1]],
  ]);
  broadcast.handle({ kind: "tick" }, broadcast.deadlineMs());
  expect(sendsOf(broadcast.drain()).map(({ frames }) => versionsOf(frames))).toEqual([[2, 3]]);
});

test.each<[string, ColumnChange, boolean]>([
  ["a delete", change({ cid: "-1", cl: 2 }), true],
  ["a row's return from a delete", change({ cid: "-1", cl: 3 }), false],
  ["an update of a machine's state", change({ cid: "state", colVersion: 2 }), true],
  ["the first state of a machine", change({ cid: "state", colVersion: 1 }), false],
  ["an update of another column", change({ cid: "region", colVersion: 2 }), false],
  ["a table named like a built-in", change({ table: "constructor", colVersion: 2 }), false],
])("%s: whether it is urgent", (_name, item, isUrgent) => {
  const broadcast = createBroadcast({ members: members(1) });
  broadcast.handle({ kind: "committed", changesets: [{ ...own(1), changes: [item] }] }, 0);
  expect(sendsOf(broadcast.drain()).map((send) => send.isUrgent)).toEqual([isUrgent]);
});

test("one urgent change makes every chunk of its own transaction urgent", () => {
  const broadcast = createBroadcast({ members: members(1) });
  const chunks = [chunk(1, 0), { ...deletion(1), seqs: { start: 1, end: 1 }, lastSeq: 1 }];
  broadcast.handle({ kind: "committed", changesets: chunks }, 0);
  const sends = sendsOf(broadcast.drain());
  expect(sends.map(({ isUrgent, frames }) => [isUrgent, frames.length])).toEqual([[true, 2]]);
});

test("an urgent chunk takes along the received chunks of its version, before and after it", () => {
  const broadcast = createBroadcast({ members: members(2) });
  const busy = [own(1), own(2)];
  for (const changeset of busy) broadcast.handle({ kind: "committed", changesets: [changeset] }, 0);
  broadcast.drain();
  const chunks = [0, 1, 2].map((seq) => ({ ...chunk(9, seq, 2), actorId: actor(1) }));
  chunks[1] = { ...chunks[1]!, changes: [change({ cid: "-1", cl: 2, seq: 1 })] };
  const frames: number[][] = [];
  for (const changeset of chunks) {
    broadcast.handle(received(changeset), 1);
    for (const send of sendsOf(broadcast.drain())) {
      expect([send.target, send.isUrgent]).toEqual([address(2), true]);
      frames.push(send.frames.map((frame) => seqOf(frame)));
    }
  }
  expect(frames).toEqual([[0, 1], [2]]);
});

test("news is passed on with its original bytes, not to its origin, and once", () => {
  const broadcast = createBroadcast({ members: members(2) });
  const payload = Uint8Array.of(...encodeBroadcast(news(1), 0), 0xaa);
  const input: BroadcastInput = { kind: "received", changeset: news(1), payload, isNews: true };
  broadcast.handle(input, 0);
  broadcast.handle(input, 1);
  broadcast.handle({ kind: "tick" }, 500);
  const sends = sendsOf(broadcast.drain());
  expect(sends.map(({ target, frames }) => [target, frames])).toEqual([[address(2), [payload]]]);
  expect(broadcast.stats).toMatchObject({ relayed: 1, duplicates: 1 });
});

test("in a small cluster each member gets a change from its origin and from one other member", () => {
  const size = 9;
  const all = members(size);
  for (let origin = 1; origin <= size; origin += 1) {
    const copies = new Map<string, number>();
    for (const { actorId } of all.filter((member) => member.actorId !== actor(origin))) {
      const broadcast = createBroadcast({ members: all, actorId });
      broadcast.handle(received({ ...news(1), actorId: actor(origin) }), 0);
      expect(broadcast.drain()).toEqual([]);
      broadcast.handle({ kind: "tick" }, broadcast.deadlineMs());
      for (const { target } of sendsOf(broadcast.drain())) {
        copies.set(target, (copies.get(target) ?? 0) + 1);
      }
    }
    const others = all.map(({ address: one }) => one).filter((one) => one !== address(origin));
    expect(copies).toEqual(new Map(others.map((one) => [one, 1])));
  }
});

test("changes that are passed on within half a second share a stream, urgent ones go at once", () => {
  const broadcast = createBroadcast({ members: members(9) });
  for (const version of [1, 2, 3]) broadcast.handle(received(news(version)), version * 30);
  expect(broadcast.drain()).toEqual([]);
  broadcast.handle(received({ ...deletion(4), actorId: actor(1) }), 91);
  const urgent = sendsOf(broadcast.drain());
  expect(urgent.map(({ isUrgent, frames }) => [isUrgent, versionsOf(frames)])).toEqual(
    [1, 2, 3].map(() => [true, [4]]),
  );
  expect(broadcast.deadlineMs()).toBe(530);
  broadcast.handle({ kind: "tick" }, 530);
  expect(sendsOf(broadcast.drain()).map(({ frames }) => versionsOf(frames))).toEqual([[1, 2, 3]]);
});

test("what is known, empty or our own is not passed on", () => {
  const broadcast = createBroadcast({ members: members(2) });
  const versions = { start: 1, end: 2 };
  const empty = { kind: "empty", actorId: actor(1), versions, ts: null } as const;
  broadcast.handle({ ...received(news(1)), isNews: false }, 0);
  broadcast.handle({ kind: "received", changeset: empty, payload: null, isNews: true }, 0);
  broadcast.handle(received(own(5)), 0);
  expect(broadcast.drain()).toEqual([]);
  expect(broadcast.hasSeen(news(1))).toBe(true);
  expect(broadcast.hasSeen(news(2))).toBe(false);
  broadcast.forget(news(1));
  expect(broadcast.hasSeen(news(1))).toBe(false);
});

test("members of another cluster and this replica itself are sent nothing", () => {
  const [first, second] = members(2);
  const broadcast = createBroadcast({
    members: [
      { ...first!, clusterId: 1 },
      { ...second!, actorId: ACTOR_A },
    ],
  });
  broadcast.handle({ kind: "committed", changesets: [own(1)] }, 0);
  expect(broadcast.drain()).toEqual([]);
  expect(broadcast.stats.backlogEntries).toBe(0);
});

test("a failed stream is sent again after a while", () => {
  const broadcast = createBroadcast({ members: members(2) });
  broadcast.handle({ kind: "committed", changesets: [own(1)] }, 0);
  const [first, second] = sendsOf(broadcast.drain());
  broadcast.handle({ kind: "sent", id: first!.id, ok: true }, 5);
  broadcast.handle({ kind: "sent", id: second!.id, ok: false }, 5);
  broadcast.handle({ kind: "tick" }, broadcast.deadlineMs());
  expect(sendsOf(broadcast.drain())).toMatchObject([{ target: second!.target }]);
  expect(broadcast.stats.transmissionsFailed).toBe(1);
});

test("a send without an answer is taken as failed and holds nothing for ever", () => {
  const broadcast = createBroadcast({ members: members(1) });
  broadcast.handle({ kind: "committed", changesets: [own(1)] }, 0);
  for (let turn = 0; turn < 10 && broadcast.deadlineMs() < 1e9; turn += 1) {
    broadcast.handle({ kind: "tick" }, broadcast.deadlineMs());
  }
  expect(broadcast.stats).toMatchObject({ backlogEntries: 0, inFlight: 0 });
});

test("a renewed peer gets the last seconds again at once, urgent changes first", () => {
  const broadcast = createBroadcast({ members: members(2) });
  settle(broadcast, { kind: "committed", changesets: [own(1)] }, 0);
  settle(broadcast, { kind: "committed", changesets: [own(2)] }, 3000);
  settle(broadcast, { kind: "committed", changesets: [deletion(3)] }, 4000);
  settle(broadcast, received(news(7)), 5000);
  settle(broadcast, { kind: "tick" }, 5500);
  broadcast.handle({ kind: "peerRenewed", address: address(1) }, 6000);
  const sends = sendsOf(broadcast.drain());
  expect(sends.map(({ target, frames }) => [target, versionsOf(frames)])).toEqual([
    [address(1), [3, 2, 7]],
  ]);
  broadcast.handle({ kind: "sent", id: sends[0]!.id, ok: true }, 6001);
  expect(broadcast.stats).toMatchObject({ backlogEntries: 0, replayed: 3 });
});

test("what is kept for renewed peers is bounded in bytes, the newest stay", () => {
  const broadcast = createBroadcast({ members: members(1), replayBytesMax: 2500 });
  for (const version of [1, 2, 3]) {
    const changesets = [own(version, "x".repeat(1000))];
    settle(broadcast, { kind: "committed", changesets }, version * 20);
  }
  broadcast.handle({ kind: "peerRenewed", address: address(1) }, 100);
  expect(sendsOf(broadcast.drain()).map(({ frames }) => versionsOf(frames))).toEqual([[2, 3]]);
});

test("the byte budget holds ordinary changes back, lets urgent ones borrow, then opens again", () => {
  const broadcast = createBroadcast({ members: members(1), budgetBytesPerSecond: 1000 });
  broadcast.handle({ kind: "committed", changesets: [own(1, "x".repeat(1500))] }, 0);
  expect(framesPerSend(broadcast.drain())).toEqual([1]);
  broadcast.handle({ kind: "committed", changesets: [own(2)] }, 20);
  expect(broadcast.drain()).toEqual([]);
  broadcast.handle({ kind: "committed", changesets: [deletion(3)] }, 21);
  expect(sendsOf(broadcast.drain()).map(({ frames }) => versionsOf(frames))).toEqual([[3]]);
  const opensAt = broadcast.deadlineMs();
  expect(opensAt).toBeGreaterThan(500);
  broadcast.handle({ kind: "tick" }, opensAt);
  expect(sendsOf(broadcast.drain()).map(({ frames }) => versionsOf(frames))).toEqual([[2]]);
  expect(broadcast.stats.rateLimited).toBeGreaterThan(0);
});

test("over a minute of load no more than the budget and one burst is sent", () => {
  const budget = 20_000;
  const broadcast = createBroadcast({ members: members(2), budgetBytesPerSecond: budget });
  for (let now = 0; now < 60_000; now += 25) {
    const changesets = [own(now + 1, "x".repeat(800))];
    settle(broadcast, { kind: "committed", changesets }, now);
  }
  const { bytesSent } = broadcast.stats;
  expect(bytesSent).toBeLessThan(budget * 61 + 2 * BROADCAST_DEFAULTS.flushBytes);
  expect(bytesSent).toBeGreaterThan(budget * 58);
});

test("a full backlog gives up the oldest own, then the oldest received, urgent ones last", () => {
  const backlog = createBroadcast({
    members: members(1),
    backlogEntriesMax: 3,
    budgetBytesPerSecond: 1,
  });
  // The budget is used up for good: everything from here stays queued.
  backlog.handle({ kind: "committed", changesets: [deletion(1)] }, 0);
  settleAll(backlog, 0);
  backlog.handle(received({ ...news(10), actorId: actor(7) }), 0);
  backlog.handle({ kind: "committed", changesets: [own(2)] }, 0);
  backlog.handle({ kind: "committed", changesets: [deletion(3)] }, 0);
  backlog.handle({ kind: "committed", changesets: [own(4)] }, 0);
  backlog.handle(received({ ...news(11), actorId: actor(7) }), 0);
  backlog.handle(received({ ...news(12), actorId: actor(7) }), 0);
  backlog.drain();
  const left: number[] = [];
  for (let turn = 0; turn < 5; turn += 1) {
    backlog.handle({ kind: "tick" }, 1e9 * (turn + 1));
    for (const send of sendsOf(backlog.drain())) {
      left.push(...versionsOf(send.frames));
      backlog.handle({ kind: "sent", id: send.id, ok: true }, 1e9 * (turn + 1));
    }
  }
  expect(left).toEqual([3, 11, 12]);
});

test("a peer that takes nothing loses its oldest, the others go on", () => {
  const broadcast = createBroadcast({
    members: members(2),
    laneInFlightMax: 1,
    laneBytesMax: 4000,
    flushBytes: 1000,
  });
  let dropped = 0;
  for (let version = 1; version <= 20; version += 1) {
    const changesets = [own(version, "x".repeat(800))];
    broadcast.handle({ kind: "committed", changesets }, version * 20);
    const outputs = broadcast.drain();
    dropped += dropsOf(outputs, "lane-full");
    for (const { id, target } of sendsOf(outputs)) {
      const isStuck = target === address(1);
      if (!isStuck) broadcast.handle({ kind: "sent", id, ok: true }, version * 20);
    }
  }
  expect(dropped).toBeGreaterThan(10);
  expect(broadcast.stats.framesSent).toBe(21);
});

test("a member that leaves takes its queue with it", () => {
  const broadcast = createBroadcast({ members: members(1), laneInFlightMax: 0 });
  broadcast.handle({ kind: "committed", changesets: [own(1), own(2)] }, 0);
  broadcast.drain();
  broadcast.handle({ kind: "members", members: [] }, 1);
  expect(dropsOf(broadcast.drain(), "peer-gone")).toBe(2);
  expect(broadcast.stats).toMatchObject({ backlogEntries: 0, backlogBytes: 0 });
  expect(broadcast.deadlineMs()).toBe(Number.POSITIVE_INFINITY);
});

test("under any inputs memory stays bounded, deadlines lead to quiet, and all ends empty", () => {
  fc.assert(
    fc.property(fc.array(steps(), { maxLength: 60 }), fc.integer(), (script, seed) => {
      const limits = { backlogEntriesMax: 8, backlogBytesMax: 4000, budgetBytesPerSecond: 2000 };
      const broadcast = createBroadcast({ members: members(3), seed, ...limits });
      const open: number[] = [];
      let now = 0;
      for (const { waitMs, step } of script) {
        now += waitMs;
        const input = step(open);
        if (input !== null) broadcast.handle(input, now);
        open.push(...sendsOf(broadcast.drain()).map(({ id }) => id));
        expect(broadcast.stats.backlogEntries).toBeLessThanOrEqual(8);
        expect(broadcast.stats.backlogBytes).toBeLessThanOrEqual(4000);
      }
      for (let turn = 0; turn < 500; turn += 1) {
        for (const id of open.splice(0)) broadcast.handle({ kind: "sent", id, ok: true }, now);
        open.push(...sendsOf(broadcast.drain()).map(({ id }) => id));
        const next = broadcast.deadlineMs();
        if (next === Number.POSITIVE_INFINITY && open.length === 0) break;
        if (Number.isFinite(next)) now = Math.max(now, next);
        broadcast.handle({ kind: "tick" }, now);
      }
      expect(broadcast.stats).toMatchObject({ backlogEntries: 0, backlogBytes: 0, inFlight: 0 });
      expect(broadcast.deadlineMs()).toBe(Number.POSITIVE_INFINITY);
    }),
  );
});

// ---------------------------------------------------------------- helpers

type Send = Extract<BroadcastOutput, { kind: "send" }>;

interface Setup extends Partial<BroadcastConfig> {
  readonly members: readonly BroadcastMember[];
  readonly seed?: number;
}

function createBroadcast({ members: all, seed, ...config }: Setup): Broadcast {
  const broadcast = new Broadcast(
    { ...BROADCAST_DEFAULTS, actorId: ACTOR_A, clusterId: 0, ...config },
    createPrng(seed ?? 1),
  );
  broadcast.handle({ kind: "members", members: all }, 0);
  return broadcast;
}

function members(count: number): BroadcastMember[] {
  return Array.from({ length: count }, (_, index) => ({
    actorId: actor(index + 1),
    address: address(index + 1),
    clusterId: 0,
    ring: null,
  }));
}

function actor(number: number): string {
  return `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
}

function address(number: number): string {
  return `10.0.0.${number}:4001`;
}

function change(fields: Partial<ColumnChange>): ColumnChange {
  const base = { table: "machines", pk: Uint8Array.of(1, 9, 1), cid: "region", val: "ams" };
  return { ...base, colVersion: 1, seq: 0, cl: 1, ...fields };
}

function own(version: number, val = "ams"): FullChangeset {
  const seqs = { start: 0, end: 0 };
  const changes = [change({ val })];
  return { kind: "full", actorId: ACTOR_A, version, changes, seqs, lastSeq: 0, ts: 1n };
}

function deletion(version: number): FullChangeset {
  return { ...own(version), changes: [change({ cid: "-1", val: null, cl: 2 })] };
}

function chunk(version: number, seq: number, lastSeq = 1): FullChangeset {
  const seqs = { start: seq, end: seq };
  return { ...own(version), changes: [change({ seq })], seqs, lastSeq };
}

function news(version: number): FullChangeset {
  return { ...own(version), actorId: actor(1) };
}

function received(changeset: FullChangeset): Extract<BroadcastInput, { kind: "received" }> {
  return { kind: "received", changeset, payload: null, isNews: true };
}

/** Handles one input and answers every send of it with success. */
function settle(broadcast: Broadcast, input: BroadcastInput, now: number): void {
  broadcast.handle(input, now);
  settleAll(broadcast, now);
}

function settleAll(broadcast: Broadcast, now: number): void {
  for (const { id } of sendsOf(broadcast.drain())) {
    broadcast.handle({ kind: "sent", id, ok: true }, now);
  }
}

function sendsOf(outputs: readonly BroadcastOutput[]): Send[] {
  return outputs.filter((output) => output.kind === "send");
}

function framesPerSend(outputs: readonly BroadcastOutput[]): number[] {
  return sendsOf(outputs).map(({ frames }) => frames.length);
}

function dropsOf(outputs: readonly BroadcastOutput[], reason: string): number {
  let count = 0;
  for (const output of outputs) {
    if (output.kind === "drop" && output.reason === reason) count += output.count;
  }
  return count;
}

function fullOf(frame: Uint8Array): FullChangeset {
  const decoded = decodeUniPayload(frame);
  if (!decoded.ok || decoded.value.kind !== "change") throw new Error("not a change");
  const changeset = decoded.value.changesets[0];
  if (changeset?.kind !== "full") throw new Error("not a full changeset");
  return changeset;
}

function versionsOf(frames: readonly Uint8Array[]): number[] {
  return frames.map((frame) => fullOf(frame).version);
}

function seqOf(frame: Uint8Array): number {
  return fullOf(frame).seqs.start;
}

interface Step {
  readonly waitMs: number;
  /** Makes an input from the sends that still lack an answer. */
  readonly step: (open: number[]) => BroadcastInput | null;
}

function steps(): fc.Arbitrary<Step> {
  const versions = fc.integer({ min: 1, max: 40 });
  const step = fc.oneof(
    fc
      .tuple(versions, fc.nat({ max: 600 }), fc.boolean())
      .map(([version, size, isUrgent]): Step["step"] => () => ({
        kind: "committed",
        changesets: [isUrgent ? deletion(version) : own(version, "x".repeat(size))],
      })),
    versions.map(
      (version): Step["step"] =>
        () =>
          received(news(version)),
    ),
    fc.boolean().map((ok): Step["step"] => (open) => {
      const id = open.shift();
      return id === undefined ? null : { kind: "sent", id, ok };
    }),
    fc.nat({ max: 4 }).map((count): Step["step"] => () => ({
      kind: "members",
      members: members(count),
    })),
    fc.integer({ min: 1, max: 4 }).map((number): Step["step"] => () => ({
      kind: "peerRenewed",
      address: address(number),
    })),
    fc.constant<Step["step"]>(() => ({ kind: "tick" })),
  );
  return fc.record({ waitMs: fc.nat({ max: 300 }), step });
}
