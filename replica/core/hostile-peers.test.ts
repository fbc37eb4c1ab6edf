/** What a peer with a valid certificate may say that is not so: it is counted, and changes nothing. */
import { describe, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import type { ActorBook, ActorId, Changeset, FullChangeset } from "../types.ts";
import { ACTOR_A, ACTOR_B } from "../../tests/wire-fixtures.ts";
import { VERSION_BELIEVED_MAX } from "./bookkeeping/bookkeeping.ts";
import { BRAKE_DEFAULTS } from "./brake/brake.ts";
import { BROADCAST_DEFAULTS } from "./broadcast/types.ts";
import { Hlc } from "./hlc.ts";
import { ReplicaCore } from "./replica-core.ts";
import type { ReplicaInput } from "./replica-messages.ts";
import { lanPreset } from "./swim/config.ts";
import type { SwimPacket } from "./swim/packet.ts";
import type { SyncClientInput } from "./sync/client-types.ts";
import { SYNC_CLIENT_LAN, SYNC_SERVER_DEFAULTS } from "./sync/config.ts";

const GREATEST = Number.MAX_SAFE_INTEGER;

describe("by broadcast", () => {
  test.each<[string, Changeset]>([
    ["an Empty of all versions there can be", emptyOf(1, GREATEST)],
    ["an Empty that reaches above the head", emptyOf(1, 6)],
    ["a version beyond belief", fullOf({ version: VERSION_BELIEVED_MAX + 1 })],
    ["seqs upside down", fullOf({ seqs: { start: 1, end: 0 } })],
  ])("%s is counted as invalid and neither applied nor passed on", (_, changeset) => {
    const core = createCore();
    const before = bookOf(core);
    core.handle(broadcastOf(changeset), 1);
    expect(core.stats.invalid).toBe(1);
    expect(core.drain()).toEqual([]);
    expect(bookOf(core)).toEqual(before);
    expect(takes(core, fullOf({ version: 6 }))).toBe(true);
  });

  test("another cluster's change is counted and not looked at", () => {
    const core = createCore();
    core.handle({ ...broadcastOf(fullOf({ version: 6 })), clusterId: 7 }, 1);
    expect(core.stats.otherCluster).toBe(1);
    expect(core.drain()).toEqual([]);
  });

  test("a change in our own name is counted and not taken", () => {
    const core = createCore();
    core.handle(broadcastOf({ ...fullOf({ version: 9 }), actorId: ACTOR_A }), 1);
    expect(core.stats.own).toBe(1);
    expect(core.drain()).toEqual([]);
    expect(core.books.head(ACTOR_A)).toBe(0);
  });

  test("a version just within belief costs one gap, and the versions below it are still taken", () => {
    const core = createCore();
    expect(takes(core, fullOf({ version: VERSION_BELIEVED_MAX }))).toBe(true);
    core.books.recordComplete(ACTOR_B, { start: VERSION_BELIEVED_MAX, end: VERSION_BELIEVED_MAX });
    expect(core.books.gaps(ACTOR_B)).toEqual([{ start: 6, end: VERSION_BELIEVED_MAX - 1 }]);
    expect(takes(core, fullOf({ version: 6 }))).toBe(true);
  });
});

test("actors that a peer invents have no entry in the books until something of theirs is stored", () => {
  const core = createCore();
  for (let n = 0; n < 1000; n += 1) {
    const actorId = inventedId(n);
    core.handle(broadcastOf({ ...fullOf({ version: 6 }), actorId }), 1);
    core.handle(broadcastOf({ ...emptyOf(1, 6), actorId }), 1);
    core.drain();
  }
  expect(core.stats.invalid).toBe(1000);
  expect([...core.books.actors()]).toEqual([ACTOR_B]);
});

describe("actors that a peer invents with a valid change each", () => {
  test("find so many places and no more, are not passed on, and crowd no member out", () => {
    const core = createCore({ actorsMax: 10 });
    hear(core, packetFrom(core, {}));
    core.drain();
    const kinds: string[] = [];
    for (let n = 0; n < 1_000; n += 1) {
      const changeset = { ...fullOf({ version: 1 }), actorId: inventedId(n) };
      core.handle(broadcastOf(changeset), 1);
      for (const output of core.drain()) {
        kinds.push(output.kind);
        if (output.kind === "apply") applyAll(core, output.batchId, output.changesets);
      }
    }
    expect(core.books.actorCount).toBe(10);
    expect(core.admission.refused).toBe(991);
    expect(kinds.filter((kind) => kind === "apply")).toHaveLength(9);
    expect(kinds.filter((kind) => kind === "strangerRefused")).toHaveLength(991);
    expect(core.books.syncState(ACTOR_A).heads.size).toBe(10);
    // Whoever is known, or is a member, is taken as ever.
    expect(takes(core, fullOf({ version: 6 }))).toBe(true);
    expect(takes(core, { ...fullOf({ version: 1 }), actorId: ACTOR_C })).toBe(false);
    hear(core, packetFrom(core, { id: ACTOR_C, addr: "10.0.0.9:1" }));
    core.drain();
    expect(takes(core, { ...fullOf({ version: 1 }), actorId: ACTOR_C })).toBe(true);
  });

  test("and that a server says it has are not asked for", () => {
    const core = createCore({ actorsMax: 10 });
    hear(core, packetFrom(core, {}));
    const session = openSession(core);
    const heads = new Map(Array.from({ length: 1_000 }, (_, n) => [inventedId(n), 1]));
    heads.set(ACTOR_B, 7);
    const state = { ...core.books.syncState(ACTOR_B), heads };
    tellSync(core, { kind: "message", sessionId: session, message: { kind: "state", state } });
    tellSync(core, { kind: "message", sessionId: session, message: { kind: "clock", ts: 1n } });
    const asked = core.drain().flatMap((output) => {
      if (output.kind !== "syncClient" || output.output.kind !== "send") return [];
      const { message } = output.output;
      return message.kind === "request" ? message.requests.map(({ actorId }) => actorId) : [];
    });
    expect(asked).toContain(ACTOR_B);
    expect(new Set(asked).size).toBe(10);
  });
});

describe("by membership", () => {
  test.each<[string, Partial<SwimPacket["source"]>]>([
    ["in our own name", { id: ACTOR_A }],
    ["of another cluster", { clusterId: 7 }],
  ])("a packet %s leaves the members as they are", (_, source) => {
    const core = createCore();
    hear(core, packetFrom(core, {}));
    const members = core.swim.members.map(({ actor, state }) => [actor.id, state]);
    expect(members).toEqual([[ACTOR_B, "alive"]]);
    const stranger = { id: ACTOR_C, addr: "10.0.0.9:1", ...source };
    hear(core, packetFrom(core, stranger));
    const after = core.swim.members.map(({ actor, state }) => [actor.id, state]);
    expect(after.filter(([id]) => id !== ACTOR_C)).toEqual(members);
    expect(core.swim.peers.map(({ actor }) => actor.id)).toEqual([ACTOR_B]);
  });
});

const ACTOR_C = "0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c";

function inventedId(n: number): ActorId {
  return `0d0d0d0d-0d0d-4d0d-8d0d-${n.toString(16).padStart(12, "0")}`;
}

function applyAll(core: ReplicaCore, batchId: number, changesets: readonly Changeset[]): void {
  const outcomes = changesets.map(
    (changeset) => ({ kind: "applied", changeset, rowsChanged: 1 }) as const,
  );
  core.handle({ kind: "applied", batchId, outcomes }, 1);
}

/** The first sync session, opened; its id. */
function openSession(core: ReplicaCore): number {
  core.handle({ kind: "tick" }, core.syncClient.deadlineMs());
  for (const output of core.drain()) {
    if (output.kind !== "syncClient" || output.output.kind !== "open") continue;
    const { sessionId } = output.output;
    tellSync(core, { kind: "opened", sessionId });
    return sessionId;
  }
  throw new Error("no session was begun");
}

function tellSync(core: ReplicaCore, input: SyncClientInput): void {
  core.handle({ kind: "syncClient", input }, core.syncClient.deadlineMs());
}

/** Knows versions 1 to 5 of B. */
function createCore(more: { actorsMax?: number } = {}): ReplicaCore {
  const books = new Map<ActorId, ActorBook>([
    [ACTOR_B, { head: 5, gaps: [], partials: new Map() }],
  ]);
  return new ReplicaCore({
    self: { id: ACTOR_A, addr: "127.0.0.1:4001", ts: 16n, clusterId: 0, memberId: null },
    swim: lanPreset,
    broadcast: { ...BROADCAST_DEFAULTS, actorId: ACTOR_A, clusterId: 0 },
    brake: BRAKE_DEFAULTS,
    syncClient: SYNC_CLIENT_LAN,
    syncServer: SYNC_SERVER_DEFAULTS,
    books,
    ...more,
    prng: createPrng(1),
    hlc: new Hlc(),
    wallNtp64: (nowMs) => (BigInt(Math.floor(nowMs)) + 1n) << 32n,
  });
}

function broadcastOf(changeset: Changeset): Extract<ReplicaInput, { kind: "broadcast" }> {
  return { kind: "broadcast", changeset, payload: null, clusterId: 0 };
}

/** Whether a change goes on to the store. */
function takes(core: ReplicaCore, changeset: Changeset): boolean {
  core.handle(broadcastOf(changeset), 2);
  return core.drain().some(({ kind }) => kind === "apply");
}

function bookOf(core: ReplicaCore): unknown {
  return core.books.snapshot();
}

function emptyOf(start: number, end: number): Changeset {
  return { kind: "empty", actorId: ACTOR_B, versions: { start, end }, ts: null };
}

function fullOf(of: Partial<FullChangeset>): FullChangeset {
  const change = { table: "t", pk: Uint8Array.of(1, 9, 1), cid: "v", val: "x", colVersion: 1 };
  const changes = [{ ...change, seq: 0, cl: 1 }];
  const base = {
    kind: "full",
    actorId: ACTOR_B,
    version: 6,
    changes,
    lastSeq: 0,
    ts: 16n,
  } as const;
  return { ...base, seqs: { start: 0, end: 0 }, ...of };
}

function packetFrom(core: ReplicaCore, source: Partial<SwimPacket["source"]>): SwimPacket {
  const peer = { id: ACTOR_B, addr: "10.0.0.2:1", ts: 1n << 32n, clusterId: 0, memberId: null };
  return {
    source: { ...peer, ...source },
    sourceIncarnation: 0,
    target: core.swim.self,
    message: { kind: "gossip" },
    members: [],
  };
}

function hear(core: ReplicaCore, packet: SwimPacket): void {
  core.handle({ kind: "packet", packet, packetBytes: 100 }, 0);
}
