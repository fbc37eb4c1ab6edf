import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { ACTOR_A, ACTOR_B } from "../../tests/wire-fixtures.ts";
import type { ActorId, Address, ApplyOutcome, FullChangeset, LocalCommit } from "../types.ts";
import { BRAKE_DEFAULTS } from "./brake/brake.ts";
import { BROADCAST_DEFAULTS } from "./broadcast/types.ts";
import { Hlc } from "./hlc.ts";
import { ReplicaCore } from "./replica-core.ts";
import type { ReplicaOutput } from "./replica-messages.ts";
import { lanPreset } from "./swim/config.ts";
import { decodeUniPayload } from "./wire/uni-payload.ts";
import { SYNC_CLIENT_LAN, SYNC_SERVER_DEFAULTS } from "./sync/config.ts";

test("a broadcast that the store could not apply is news again when a copy comes", () => {
  const core = createCore();
  receive(core, changesetOf(1));
  const [first] = appliesOf(core.drain());
  expect(first?.changesets).toHaveLength(1);
  receive(core, changesetOf(1));
  expect(appliesOf(core.drain()), "a copy under way is no news").toEqual([]);

  core.handle({ kind: "applied", batchId: first!.batchId, outcomes: [] }, 1);
  receive(core, changesetOf(1));
  expect(appliesOf(core.drain()).map(({ changesets }) => changesets.length)).toEqual([1]);
});

test("a broadcast that the store could not apply is asked for by sync without a long wait", () => {
  const core = createCore();
  introduce(core, ACTOR_B, "127.0.0.1:4002");
  // The hint of the member is used up: the next round is a back-off away.
  endRound(core, 0);
  const quietUntilMs = core.syncClient.deadlineMs();
  receive(core, changesetOf(1));
  const [batch] = appliesOf(core.drain());
  core.handle({ kind: "applied", batchId: batch!.batchId, outcomes: [] }, 1);
  expect(core.syncClient.deadlineMs()).toBeLessThan(quietUntilMs);
});

test("a storm of urgent changes fills batches, not the store's queue", () => {
  const core = createCore();
  for (let version = 2; version <= 5_001; version += 1) receive(core, urgentOf(version));
  const applies = appliesOf(core.drain());
  expect(applies.every(({ isUrgent }) => isUrgent)).toBe(true);
  expect(applies).toHaveLength(2);
  expect(core.inboxSize).toBe(5_000);
  core.handle({ kind: "applied", batchId: applies[0]!.batchId, outcomes: [] }, 1);
  expect(appliesOf(core.drain()).map(({ changesets }) => changesets.length)).toEqual([1_000]);
});

test("a replica that takes over another's address is reached over a connection of its own", () => {
  const core = createCore();
  const address = "127.0.0.1:4002";
  introduce(core, ACTOR_B, address);
  core.handle({ kind: "rtt", address, rttMs: 3 }, 1);
  core.drain();
  introduce(core, ACTOR_C, address);
  expect(core.drain()).toContainEqual({
    kind: "forget",
    target: address,
    reason: "another actor id",
  });
  // When the one that was there before is found dead, its successor's round trip stays known.
  const { actor, incarnation } = core.swim.memberById(ACTOR_B)!;
  introduce(core, ACTOR_C, address, [{ actor, incarnation, state: "down" }]);
  expect(core.swim.members.map((member) => member.actor.id)).toEqual([ACTOR_C]);
  expect(core.rings.rttMs(address)).toBe(3);
});

test("a broadcast of our own origin, or of another cluster, is counted and nothing else", () => {
  const core = createCore();
  const [own, foreign] = [{ ...changesetOf(1), actorId: ACTOR_A }, changesetOf(1)];
  core.handle({ kind: "broadcast", changeset: own, payload: null, clusterId: 0 }, 1);
  core.handle({ kind: "broadcast", changeset: foreign, payload: null, clusterId: 7 }, 1);
  expect(core.drain()).toEqual([]);
  expect(core.stats).toMatchObject({ own: 1, otherCluster: 1, news: 0 });
  expect(core.books.head(ACTOR_B)).toBe(0);
});

test("news is applied once and passed on, also when it comes from two sides", () => {
  const core = createCore();
  introduce(core, ACTOR_C, "127.0.0.1:4003");
  core.drain();
  receive(core, changesetOf(1));
  receive(core, changesetOf(1));
  core.handle({ kind: "tick" }, core.deadlineMs());
  core.handle({ kind: "tick" }, 50);
  const outputs = core.drain();
  expect(appliesOf(outputs).map(({ changesets }) => changesets)).toEqual([[changesetOf(1)]]);
  core.handle({ kind: "tick" }, 550);
  const sends = core.drain().filter((output) => output.kind === "sendFrames");
  expect(sends.map(({ target, frames }) => [target, frames.length])).toEqual([
    ["127.0.0.1:4003", 1],
  ]);
  expect(core.stats).toMatchObject({ news: 1, known: 1 });
});

test("what was applied is known: a copy is not applied again", () => {
  const core = createCore();
  receive(core, changesetOf(1));
  finishApplies(core);
  expect([core.books.head(ACTOR_B), core.inboxSize]).toEqual([1, 0]);
  receive(core, changesetOf(1));
  expect(appliesOf(core.drain())).toEqual([]);
});

test("an urgent change is applied by itself, before what waits", () => {
  const core = createCore();
  for (const version of [2, 3, 4]) receive(core, changesetOf(version));
  receive(core, urgentOf(5));
  const applies = appliesOf(core.drain());
  const kinds = applies.map(({ isUrgent, changesets }) => [isUrgent, changesets.length]);
  // Two ordinary batches may be under way; the third change waits, the urgent one does not.
  expect(kinds).toEqual([
    [false, 1],
    [false, 1],
    [true, 1],
  ]);
});

test("a version that leaves a gap behind makes the next sync round come at once", () => {
  const core = createCore();
  introduce(core, ACTOR_B, "127.0.0.1:4002");
  endRound(core, 0);
  const quietUntilMs = core.syncClient.deadlineMs();
  receive(core, changesetOf(3));
  finishApplies(core);
  expect(core.books.isLacking()).toBe(true);
  expect(core.syncClient.deadlineMs()).toBeLessThan(quietUntilMs);
});

test("taken for down by others, a replica asks at once for what it was not sent meanwhile", () => {
  const core = createCore();
  introduce(core, ACTOR_B, "127.0.0.1:4002");
  endRound(core, 0);
  const quietUntilMs = core.syncClient.deadlineMs();
  const { self } = core.swim;
  introduce(core, ACTOR_B, "127.0.0.1:4002", [{ actor: self, incarnation: 0, state: "down" }]);
  expect(core.swim.self.ts > self.ts).toBe(true);
  expect(core.syncClient.deadlineMs()).toBeLessThan(quietUntilMs);
});

test("a member that comes up is a candidate for sync, and one that goes down is none", () => {
  const core = createCore();
  introduce(core, ACTOR_B, "127.0.0.1:4002");
  core.handle({ kind: "tick" }, core.syncClient.deadlineMs());
  expect(openedBy(core.drain())).toEqual(["127.0.0.1:4002"]);

  const { actor, incarnation } = core.swim.memberById(ACTOR_B)!;
  introduce(core, ACTOR_C, "127.0.0.1:4003", [{ actor, incarnation, state: "down" }]);
  core.drain();
  core.handle({ kind: "committed", commit: commitOf(1) }, 2);
  const targets = core.drain().flatMap((one) => (one.kind === "sendFrames" ? [one.target] : []));
  expect(targets).toEqual(["127.0.0.1:4003"]);
});

test("a peer with a newer identity is dialled anew and gets the last broadcasts again", () => {
  const core = createCore();
  const address = "127.0.0.1:4002";
  introduce(core, ACTOR_B, address);
  core.drain();
  core.handle({ kind: "committed", commit: commitOf(1) }, 1);
  const before = core.drain();
  for (const output of before) {
    if (output.kind === "sendFrames") core.handle({ kind: "sent", id: output.id, ok: true }, 1);
  }
  core.drain();

  const actor = { id: ACTOR_B, addr: address, ts: 9n << 32n, clusterId: 0, memberId: null };
  const packet = packetOf({ source: actor, target: core.swim.self }, []);
  core.handle({ kind: "packet", packet, packetBytes: 100 }, 2);
  const outputs = core.drain();
  const kinds = outputs.map(({ kind }) => kind);
  expect(outputs).toContainEqual({ kind: "forget", target: address, reason: "newer identity" });
  // Sent the other way round, the frames would go over the connection that is to be closed.
  expect(kinds.indexOf("forget")).toBeLessThan(kinds.indexOf("sendFrames"));
  const frames = outputs.flatMap((one) => (one.kind === "sendFrames" ? one.frames : []));
  expect(frames).toEqual(before.flatMap((one) => (one.kind === "sendFrames" ? one.frames : [])));
});

test("an early tick does nothing, and the answer to a batch that is not ours neither", () => {
  const core = createCore();
  core.handle({ kind: "tick" }, 0);
  core.handle({ kind: "applied", batchId: 99, outcomes: [] }, 0);
  core.handle({ kind: "sent", id: 99, ok: false }, 0);
  expect(core.drain()).toEqual([]);
});

test("of an origin that writes too much, what is passed on is paced, and copies of it are dropped", () => {
  const core = createCore();
  introduce(core, ACTOR_B, "127.0.0.1:4002");
  introduce(core, ACTOR_C, "127.0.0.1:4003");
  const burst = 10 * BRAKE_DEFAULTS.rowsPerSecondMax;
  for (let version = 1; version <= burst + 100; version += 1) receive(core, changesetOf(version));
  finishApplies(core);
  expect(core.brakes.origins).toEqual([ACTOR_B]);
  expect(core.brakes.rows).toBe(1);
  const { relayed } = core.broadcast.stats;
  expect(relayed).toBe(burst);
  // Copies do not get it passed on either, and an urgent change is not kept back.
  receive(core, changesetOf(burst + 100));
  expect(core.broadcast.stats.relayed).toBe(relayed);
  receive(core, urgentOf(burst + 101));
  expect(core.broadcast.stats.relayed).toBeGreaterThan(relayed);
});

test("own changes that exceed the limit leave paced, and all of them when it leaves", () => {
  const core = createCore();
  introduce(core, ACTOR_B, "127.0.0.1:4002");
  const events: ReplicaOutput[] = [];
  for (let version = 1; version <= 3_000; version += 1) {
    core.handle({ kind: "committed", commit: commitOf(version) }, 1);
    events.push(...core.drain().filter(({ kind }) => kind === "braked"));
  }
  expect(events).toEqual([{ kind: "braked", actorId: ACTOR_A, isOn: true, rowsPerSecond: 200 }]);
  core.handle({ kind: "tick" }, 40);
  core.drain();
  core.handle({ kind: "leave" }, 41);
  core.handle({ kind: "tick" }, 60);
  const sent = core.drain().flatMap((each) => (each.kind === "sendFrames" ? each.frames : []));
  const told = sent.map((frame) => decodeUniPayload(frame)).filter(({ ok }) => ok);
  // The newest, and one Empty for the thousand before it.
  expect(told).toHaveLength(2);
  expect(core.brakes.rows).toBe(0);
});

const ACTOR_C = "0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c";

function createCore(): ReplicaCore {
  const hlc = new Hlc();
  const wallNtp64 = (nowMs: number): bigint => (BigInt(Math.floor(nowMs)) + 1n) << 32n;
  return new ReplicaCore({
    self: { id: ACTOR_A, addr: "127.0.0.1:4001", ts: 16n, clusterId: 0, memberId: null },
    swim: lanPreset,
    broadcast: {
      ...BROADCAST_DEFAULTS,
      actorId: ACTOR_A,
      clusterId: 0,
      urgentColumns: { machines: ["state"] },
    },
    brake: BRAKE_DEFAULTS,
    syncClient: SYNC_CLIENT_LAN,
    syncServer: SYNC_SERVER_DEFAULTS,
    books: new Map(),
    prng: createPrng(1),
    hlc,
    wallNtp64,
  });
}

/** A packet of `id` at `address` arrives, so that it counts as a member. */
function introduce(
  core: ReplicaCore,
  id: ActorId,
  address: Address,
  members: NonNullable<Parameters<typeof packetOf>[1]> = [],
): void {
  const actor = { id, addr: address, ts: 1n << 32n, clusterId: 0, memberId: null };
  const packet = packetOf({ source: actor, target: core.swim.self }, members);
  core.handle({ kind: "packet", packet, packetBytes: 100 }, 0);
}

function packetOf(
  ends: { source: PacketEnd; target: PacketEnd },
  members: NonNullable<ReceivedPacket["members"]>,
): ReceivedPacket {
  return { ...ends, sourceIncarnation: 0, message: { kind: "gossip" }, members };
}

type ReceivedPacket = Extract<Parameters<ReplicaCore["handle"]>[0], { kind: "packet" }>["packet"];
type PacketEnd = ReceivedPacket["source"];

/** The store applies everything that is under way, until nothing is left. */
function finishApplies(core: ReplicaCore): void {
  for (
    let batches = appliesOf(core.drain());
    batches.length > 0;
    batches = appliesOf(core.drain())
  ) {
    for (const { batchId, changesets } of batches) {
      const outcomes = changesets.map((changeset): ApplyOutcome => {
        return { kind: "applied", changeset, rowsChanged: 1 };
      });
      core.handle({ kind: "applied", batchId, outcomes }, 1);
    }
  }
}

function commitOf(version: number): LocalCommit {
  const changesets = [{ ...changesetOf(version), actorId: ACTOR_A }];
  return { version, lastSeq: 0, ts: 16n, changesets };
}

/** Addresses to which sync streams are opened. */
function openedBy(outputs: readonly ReplicaOutput[]): Address[] {
  return outputs.flatMap((output) =>
    output.kind === "syncClient" && output.output.kind === "open"
      ? [output.output.peer.address]
      : [],
  );
}

/** Runs a sync round that fails at its first server. */
function endRound(core: ReplicaCore, nowMs: number): void {
  core.handle({ kind: "tick" }, nowMs);
  for (const output of core.drain()) {
    if (output.kind !== "syncClient" || output.output.kind !== "open") continue;
    const { sessionId } = output.output;
    core.handle({ kind: "syncClient", input: { kind: "openFailed", sessionId } }, nowMs);
  }
  core.drain();
}

function receive(core: ReplicaCore, changeset: FullChangeset): void {
  core.handle({ kind: "broadcast", changeset, payload: null, clusterId: 0 }, 1);
}

function appliesOf(outputs: readonly ReplicaOutput[]) {
  return outputs.filter((output) => output.kind === "apply");
}

function changesetOf(version: number, cid = "region"): FullChangeset {
  return {
    kind: "full",
    actorId: ACTOR_B,
    version,
    changes: [
      {
        table: "machines",
        pk: Uint8Array.of(1, 0x0b, 1, 0x61),
        cid,
        val: "x",
        colVersion: version,
        seq: 0,
        cl: 1,
      },
    ],
    seqs: { start: 0, end: 0 },
    lastSeq: 0,
    ts: 16n,
  };
}

/** A machine's state changes. */
function urgentOf(version: number): FullChangeset {
  return changesetOf(version, "state");
}
