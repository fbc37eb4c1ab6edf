import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { ACTOR_A, ACTOR_B } from "../../tests/wire-fixtures.ts";
import type { ActorId, Address, FullChangeset } from "../types.ts";
import { BROADCAST_DEFAULTS } from "./broadcast/types.ts";
import { Hlc } from "./hlc.ts";
import { ReplicaCore, type ReplicaOutput } from "./replica-core.ts";
import { lanPreset } from "./swim/config.ts";
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
