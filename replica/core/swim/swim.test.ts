import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { type Actor, NIL_ACTOR_ID, placeholderActor } from "./actor.ts";
import { packetBytes } from "./codec.ts";
import { lanPreset, type SwimConfig, wanPreset } from "./config.ts";
import type { SwimEvent } from "./events.ts";
import type { MemberState, MemberUpdate, SwimMessage, SwimPacket } from "./packet.ts";
import type { SwimInput } from "./swim-input.ts";
import { Swim } from "./swim.ts";

const SELF = actor(0);
const PEER = actor(1);
const OTHER = actor(2);
const THIRD = actor(3);

describe("acceptance, in the order of the rules", () => {
  test("1: a packet above the receive limit is dropped unread", () => {
    const world = create();
    const packet = from(PEER, { kind: "ping", probe: 1 });
    world.swim.handle({ kind: "received", packet, packetBytes: 1_179 }, 0);
    expect(world.takeAll()).toEqual([]);
    expect(world.swim.stats.packetsRefused.tooLarge).toBe(1);
    world.swim.handle({ kind: "received", packet, packetBytes: 1_178 }, 0);
    expect(world.sent("ack")).toHaveLength(1);
  });

  test("2: a packet with our own actor id as its source is dropped", () => {
    const world = create();
    world.receive(from({ ...SELF, addr: PEER.addr }, { kind: "ping", probe: 1 }));
    world.receive(from({ ...PEER, id: NIL_ACTOR_ID }, { kind: "ping", probe: 1 }));
    expect(world.takeAll()).toEqual([]);
    expect(world.swim.stats.packetsRefused.badSource).toBe(2);
    expect(world.swim.members).toEqual([]);
  });

  test.each<[string, Actor]>([
    ["an earlier stamp", { ...SELF, ts: SELF.ts - 16n }],
    ["another address", { ...SELF, addr: "10.0.0.99:8787" }],
    ["another cluster id", { ...SELF, clusterId: 1 }],
    ["no id", placeholderActor(SELF.addr)],
    ["somebody else's id", OTHER],
  ])("4: a packet to an identity with %s is dropped, and its sender not learnt", (_, target) => {
    const world = create();
    world.receive({ ...from(PEER, { kind: "ping", probe: 1 }), target });
    expect(world.sent("ack")).toEqual([]);
    expect(world.swim.members).toEqual([]);
    expect(world.swim.stats.packetsRefused.notForUs).toBe(1);
  });

  test.each<[string, Actor]>([
    ["our bare address", placeholderActor(SELF.addr)],
    ["an earlier identity of ours", { ...SELF, ts: SELF.ts - 16n }],
    ["our current identity", SELF],
  ])("4: an announcement to %s is answered with a feed", (_, target) => {
    const world = create();
    world.receive({ ...from(PEER, { kind: "announce" }), target, members: null });
    expect(world.sent("feed")).toMatchObject([{ source: SELF, target: PEER, members: [] }]);
  });

  test("4: an announcement to another bare address is dropped", () => {
    const world = create();
    world.receive({
      ...from(PEER, { kind: "announce" }),
      target: placeholderActor("10.0.0.99:8787"),
    });
    expect(world.takeAll()).toEqual([]);
  });

  test("5: the sender counts as alive in the incarnation it sends", () => {
    const world = create();
    world.receive({ ...from(PEER, { kind: "gossip" }), sourceIncarnation: 4 });
    expect(world.swim.memberById(PEER.id)).toMatchObject({ state: "alive", incarnation: 4 });
    expect(world.events()).toEqual([{ kind: "memberUp", actor: PEER }, { kind: "connected" }]);
  });

  test("5: a sender that counts as down is told so, and its news are ignored", () => {
    const world = create();
    world.know(OTHER);
    world.tell(OTHER, { actor: PEER, incarnation: 0, state: "down" });
    world.takeAll();
    world.receive(from(PEER, { kind: "ping", probe: 1 }, [alive(THIRD)]));
    expect(world.packets()).toMatchObject([
      { target: PEER, message: { kind: "turnUndead" }, members: null },
    ]);
    expect(world.swim.memberById(THIRD.id)).toBeUndefined();
    expect(world.swim.stats.packetsRefused.fromDown).toBe(1);
  });

  test("5: a sender with an older identity than the one known is told so", () => {
    const world = create();
    world.know(PEER);
    world.receive(from({ ...PEER, ts: PEER.ts - 100n }, { kind: "ping", probe: 1 }));
    expect(world.sent("turnUndead")).toMatchObject([{ target: { ts: PEER.ts - 100n } }]);
    expect(world.swim.memberById(PEER.id)?.actor).toEqual(PEER);
  });

  test("5: of two that call each other down the receiver renews first, then answers", () => {
    const world = create();
    world.know(OTHER);
    world.tell(OTHER, { actor: PEER, incarnation: 0, state: "down" });
    world.takeAll();
    world.receive(from(PEER, { kind: "turnUndead" }));
    const renewed = world.swim.self;
    expect(renewed.ts > SELF.ts).toBe(true);
    expect(world.sent("turnUndead")).toMatchObject([{ source: renewed, target: PEER }]);
    // Held back from a second renewal, it does not answer either: two such would never stop.
    world.takeAll();
    world.receive({ ...from(PEER, { kind: "turnUndead" }), target: renewed });
    expect(world.packets()).toEqual([]);
  });

  test("6: piggy-backed members are applied one by one, then the message is answered", () => {
    const world = create();
    world.receive(from(PEER, { kind: "ping", probe: 9 }, [alive(OTHER), alive(THIRD)]));
    expect(world.swim.members.map((member) => member.actor)).toEqual([PEER, OTHER, THIRD]);
    expect(world.sent("ack")).toMatchObject([{ target: PEER, message: { probe: 9 } }]);
  });

  test("6: a member without an id is not learnt", () => {
    const world = create();
    world.receive(from(PEER, { kind: "gossip" }, [alive(placeholderActor("10.0.0.9:1"))]));
    expect(world.swim.members).toHaveLength(1);
  });
});

describe("answers", () => {
  test.each<[SwimMessage["kind"], SwimMessage, Actor, SwimMessage]>([
    ["ping", { kind: "ping", probe: 255 }, PEER, { kind: "ack", probe: 255 }],
    [
      "pingReq",
      { kind: "pingReq", subject: OTHER, probe: 3 },
      OTHER,
      { kind: "indirectPing", subject: PEER, probe: 3 },
    ],
    [
      "indirectPing",
      { kind: "indirectPing", subject: OTHER, probe: 3 },
      PEER,
      { kind: "indirectAck", subject: OTHER, probe: 3 },
    ],
    [
      "indirectAck",
      { kind: "indirectAck", subject: OTHER, probe: 3 },
      OTHER,
      { kind: "forwardedAck", subject: PEER, probe: 3 },
    ],
  ])("%s is answered to the right one", (_, message, target, answer) => {
    const world = create();
    world.receive(from(PEER, message));
    expect(world.packets()).toMatchObject([{ source: SELF, target, message: answer }]);
  });

  test.each<SwimMessage>([
    { kind: "feed" },
    { kind: "gossip" },
    { kind: "broadcast" },
    { kind: "ack", probe: 1 },
    { kind: "forwardedAck", subject: OTHER, probe: 1 },
    { kind: "pingReq", subject: SELF, probe: 1 },
    { kind: "indirectAck", subject: SELF, probe: 1 },
  ])("$kind is answered with nothing", (message) => {
    const world = create();
    world.receive(from(PEER, message));
    expect(world.packets()).toEqual([]);
  });

  test("a feed holds as many random active members as fit, never its target nor the down", () => {
    const world = create();
    for (let index = 10; index < 80; index += 1) world.know(actor(index));
    world.tell(actor(10), { actor: actor(11), incarnation: 0, state: "down" });
    world.takeAll();
    world.receive(from(PEER, { kind: "announce" }));
    const feed = world.sent("feed")[0]!;
    expect(packetBytes(feed)).toBeLessThanOrEqual(1_150);
    expect(packetBytes(feed)).toBeGreaterThan(1_150 - 50);
    const ids = feed.members?.map((member) => member.actor.id);
    expect(new Set(ids).size).toBe(ids?.length);
    expect(ids).not.toContain(PEER.id);
    expect(ids).not.toContain(actor(11).id);
  });
});

describe("probing", () => {
  test("a probe that is acked in time leaves the member alive", () => {
    const world = create();
    world.know(PEER);
    const ping = world.runToNext("ping");
    expect(ping).toMatchObject({ target: PEER, message: { kind: "ping", probe: 1 } });
    world.receive(from(PEER, { kind: "ack", probe: 1 }));
    expect(world.runToNext("ping").message).toEqual({ kind: "ping", probe: 2 });
    expect(world.swim.memberById(PEER.id)?.state).toBe("alive");
    expect(world.swim.stats.probesAcked).toBe(1);
  });

  test.each<[string, SwimPacket]>([
    ["with another number", from(PEER, { kind: "ack", probe: 7 })],
    ["from another member", from(OTHER, { kind: "ack", probe: 1 })],
    [
      "forwarded by one that was not asked",
      from(THIRD, { kind: "forwardedAck", subject: PEER, probe: 1 }),
    ],
  ])("an ack %s does not count", (_, packet) => {
    const world = create({ ...lanPreset, indirectProbes: 1 });
    world.know(PEER);
    world.runToNext("ping");
    world.receive(packet);
    world.runFor(lanPreset.probePeriodMs);
    expect(world.swim.memberById(PEER.id)?.state).toBe("suspect");
  });

  test("a silent member is probed through three others, and one forwarded ack saves it", () => {
    const world = create();
    for (const peer of [PEER, OTHER, THIRD, actor(4), actor(5)]) world.know(peer);
    const target = world.runToNext("ping").target;
    world.takeAll();
    world.runFor(lanPreset.probeRttMs);
    const asked = world.sent("pingReq");
    expect(asked).toHaveLength(3);
    expect(new Set(asked.map((packet) => packet.target.id)).size).toBe(3);
    for (const request of asked) {
      expect(request.message).toEqual({ kind: "pingReq", subject: target, probe: 1 });
      expect(request.target).not.toEqual(target);
    }
    const helper = asked[0]!.target;
    world.receive(from(helper, { kind: "forwardedAck", subject: target, probe: 1 }));
    world.runToNext("ping");
    expect(world.swim.memberById(target.id)?.state).toBe("alive");
    expect(world.swim.stats.probesAckedIndirectly).toBe(1);
  });

  test("an ack before the round-trip time is over spares the others", () => {
    const world = create();
    world.know(PEER);
    world.know(OTHER);
    const { target } = world.runToNext("ping");
    world.receive(from(target, { kind: "ack", probe: 1 }));
    world.runFor(lanPreset.probeRttMs + 1);
    expect(world.sent("pingReq")).toEqual([]);
  });

  test("a member that never answers is suspected, told so, and announced to by address", () => {
    const world = create();
    world.know(PEER);
    world.runToNext("ping");
    world.takeAll();
    world.runFor(lanPreset.probePeriodMs);
    expect(world.events()).toEqual([{ kind: "memberSuspect", actor: PEER, incarnation: 0 }]);
    const announcements = world.sent("announce").map((packet) => packet.target);
    expect(announcements).toContainEqual(placeholderActor(PEER.addr));
    expect(world.sent("ping").at(-1)?.members).toEqual([
      { actor: PEER, incarnation: 0, state: "suspect" },
    ]);
  });

  test("probe numbers wrap from 255 to 0", () => {
    const world = create();
    world.know(PEER);
    const numbers: number[] = [];
    for (let round = 0; round < 257; round += 1) {
      const { message } = world.runToNext("ping");
      if (message.kind !== "ping") throw new Error("not a ping");
      numbers.push(message.probe);
      world.receive(from(PEER, { kind: "ack", probe: message.probe }));
    }
    expect(numbers.slice(253)).toEqual([254, 255, 0, 1]);
  });

  test("a verdict about an identity that was replaced meanwhile is void", () => {
    const world = create();
    world.know(PEER);
    world.runToNext("ping");
    const restarted = { ...PEER, ts: PEER.ts + 100n };
    world.know(restarted);
    world.runFor(lanPreset.probePeriodMs);
    expect(world.swim.memberById(PEER.id)).toMatchObject({ actor: restarted, state: "alive" });
  });
});

describe("suspicion", () => {
  test("an unrefuted suspicion ends in down, with a last word to the suspect", () => {
    const world = create();
    world.know(OTHER);
    world.tell(OTHER, { actor: PEER, incarnation: 0, state: "suspect" });
    world.takeAll();
    world.keepAlive(OTHER, 4_990);
    expect(world.swim.memberById(PEER.id)?.state).toBe("suspect");
    world.keepAlive(OTHER, 20);
    expect(world.events()).toContainEqual({ kind: "memberDown", actor: PEER });
    expect(world.sent("turnUndead")).toMatchObject([{ target: PEER }]);
  });

  test("a higher incarnation refutes, an equal one does not", () => {
    const world = create();
    world.know(OTHER);
    world.tell(OTHER, { actor: PEER, incarnation: 0, state: "suspect" });
    world.receive(from(PEER, { kind: "gossip" }));
    expect(world.swim.memberById(PEER.id)?.state).toBe("suspect");
    world.takeAll();
    world.receive({ ...from(PEER, { kind: "gossip" }), sourceIncarnation: 1 });
    expect(world.events()).toEqual([{ kind: "memberAlive", actor: PEER, incarnation: 1 }]);
    world.keepAlive(OTHER, 6_000);
    expect(world.events()).not.toContainEqual({ kind: "memberDown", actor: PEER });
  });

  test.each([
    [0, 1],
    [3, 4],
  ])("suspected in incarnation %i, we refute with %i and gossip it at once", (at, answer) => {
    const world = create();
    for (const peer of [PEER, OTHER, THIRD, actor(4)]) world.know(peer);
    world.takeAll();
    world.tell(PEER, { actor: SELF, incarnation: at, state: "suspect" });
    expect(world.swim.incarnation).toBe(answer);
    expect(world.events()).toEqual([{ kind: "refuted", incarnation: answer }]);
    const gossip = world.sent("gossip");
    expect(gossip).toHaveLength(3);
    for (const packet of gossip) expect(packet.sourceIncarnation).toBe(answer);
  });

  test("a suspicion that is refuted already is not answered again", () => {
    const world = create();
    world.tell(PEER, { actor: SELF, incarnation: 5, state: "suspect" });
    world.takeAll();
    world.tell(PEER, { actor: SELF, incarnation: 5, state: "suspect" });
    expect(world.swim.incarnation).toBe(6);
    expect(world.packets()).toEqual([]);
  });

  test("suspected in the last incarnation, we take a newer identity", () => {
    const world = create();
    world.tell(PEER, { actor: SELF, incarnation: 65_535, state: "suspect" });
    expect(world.swim.self.ts > SELF.ts).toBe(true);
    expect(world.swim.incarnation).toBe(0);
    expect(world.events()).toContainEqual(
      expect.objectContaining({ kind: "identityRenewed", reason: "incarnationsExhausted" }),
    );
  });

  test("stale news are answered with what is known", () => {
    const world = create();
    world.know(OTHER);
    world.tell(OTHER, { actor: PEER, incarnation: 0, state: "down" });
    world.drainGossip();
    world.receive(from(OTHER, { kind: "ping", probe: 1 }, [alive(PEER)]));
    expect(world.sent("ack")[0]?.members).toContainEqual({
      actor: PEER,
      incarnation: 0,
      state: "down",
    });
  });
});

describe("identity", () => {
  test("declared down, we take a newer identity and spread the former as down", () => {
    const world = create();
    world.know(PEER);
    world.takeAll();
    world.tell(PEER, { actor: SELF, incarnation: 0, state: "down" });
    const renewed = world.swim.self;
    expect(renewed).toEqual({ ...SELF, ts: renewed.ts });
    expect(renewed.ts > SELF.ts).toBe(true);
    expect(world.events()).toEqual([
      { kind: "identityRenewed", before: SELF, after: renewed, reason: "declaredDown" },
    ]);
    const gossip = world.sent("gossip")[0];
    expect(gossip?.source).toEqual(renewed);
    expect(gossip?.members).toContainEqual({ actor: SELF, incarnation: 0, state: "down" });
  });

  test("a renewal exceeds the former stamp even when the clock stands still", () => {
    const world = create(lanPreset, () => SELF.ts);
    world.know(PEER);
    world.receive(from(PEER, { kind: "turnUndead" }));
    expect(world.swim.self.ts).toBe(SELF.ts + 16n);
  });

  test("a second verdict within a probe period waits until the period is over", () => {
    const world = create();
    world.know(PEER);
    world.receive(from(PEER, { kind: "turnUndead" }));
    const first = world.swim.self;
    world.receive({ ...from(PEER, { kind: "turnUndead" }), target: first });
    expect(world.swim.self).toBe(first);
    world.keepAlive(PEER, lanPreset.probePeriodMs + 1);
    expect(world.swim.stats.renewals).toBe(2);
  });

  test("an earlier identity of ours is spread as down, once", () => {
    const world = create();
    const earlier = { ...SELF, ts: SELF.ts - 100n };
    world.tell(PEER, alive(earlier));
    world.tell(PEER, alive(earlier));
    world.runFor(100);
    const spread = world.packets().flatMap((packet) => packet.members ?? []);
    expect(spread.filter((member) => member.actor.id === SELF.id)).toEqual([
      { actor: earlier, incarnation: 0, state: "down" },
    ]);
    expect(world.swim.self).toEqual(SELF);
  });

  test("a newer identity with our id is reported, and exceeded by the next renewal", () => {
    const world = create();
    const later = { ...SELF, ts: SELF.ts + (100n << 32n) };
    world.receive({ ...from(PEER, { kind: "ping", probe: 1 }), target: later });
    expect(world.events()).toEqual([{ kind: "identityConflict", other: later }]);
    world.receive(from(PEER, { kind: "turnUndead" }));
    expect(world.swim.self.ts > later.ts).toBe(true);
  });

  test("a member under a newer identity is reported as renamed, without going down", () => {
    const world = create();
    world.know(PEER);
    world.takeAll();
    const restarted = { ...PEER, ts: PEER.ts + 100n };
    world.know(restarted);
    expect(world.events()).toEqual([{ kind: "renamed", before: PEER, after: restarted }]);
  });

  test("a down member under a newer identity is renamed, then up", () => {
    const world = create();
    world.know(OTHER);
    world.tell(OTHER, { actor: PEER, incarnation: 0, state: "down" });
    world.takeAll();
    const restarted = { ...PEER, ts: PEER.ts + 100n };
    world.know(restarted);
    expect(world.events()).toEqual([
      { kind: "renamed", before: PEER, after: restarted },
      { kind: "memberUp", actor: restarted },
    ]);
  });

  test("moving to another cluster id renews the identity; peers are those of that cluster", () => {
    const world = create();
    world.know(PEER);
    world.know({ ...OTHER, clusterId: 7 });
    expect(world.swim.peers.map((member) => member.actor)).toEqual([PEER]);
    world.swim.handle({ kind: "changeCluster", clusterId: 7 }, 1);
    expect(world.swim.self).toMatchObject({ id: SELF.id, clusterId: 7 });
    expect(world.swim.self.ts > SELF.ts).toBe(true);
    expect(world.swim.peers.map((member) => member.actor.id)).toEqual([OTHER.id]);
    expect(world.swim.clusterSize).toBe(3);
  });

  test("leaving tells up to three members, then all is silence", () => {
    const world = create();
    for (const peer of [PEER, OTHER, THIRD, actor(4)]) world.know(peer);
    world.takeAll();
    world.swim.handle({ kind: "leave" }, 5);
    const packets = world.packets();
    expect(packets).toHaveLength(3);
    for (const packet of packets) {
      expect(packet.members?.[0]).toEqual({ actor: SELF, incarnation: 0, state: "down" });
    }
    expect(world.swim.deadlineMs()).toBe(Number.POSITIVE_INFINITY);
    world.takeAll();
    world.receive(from(PEER, { kind: "ping", probe: 1 }));
    world.swim.handle({ kind: "rejoin" }, 6);
    expect(world.packets()).toEqual([]);
  });
});

describe("joining", () => {
  test("a start announces to every bootstrap address but our own", () => {
    const world = create();
    const bootstrap = [PEER.addr, SELF.addr, "[2001:DB8:0::1]:8787", "nonsense"];
    world.swim.handle({ kind: "start", bootstrap }, 0);
    const targets = world.packets().map((packet) => packet.target.addr);
    expect(targets.toSorted()).toEqual([PEER.addr, "[2001:db8::1]:8787"]);
    expect(world.swim.stats.badAddresses).toBe(1);
    expect(world.swim.deadlineMs()).toBeLessThanOrEqual(650);
  });

  test("bootstrap addresses that resolve differently are announced to at once", () => {
    const world = create();
    world.swim.handle({ kind: "start", bootstrap: [PEER.addr] }, 0);
    world.takeAll();
    const addresses = [PEER.addr, OTHER.addr];
    world.swim.handle({ kind: "bootstrap", addresses }, 10);
    expect(world.packets().map((packet) => packet.target)).toEqual([placeholderActor(OTHER.addr)]);
  });

  test("restored members count at once, suspects among them do not", () => {
    const world = create(wanPreset);
    const members: MemberUpdate[] = [
      alive(PEER),
      { actor: OTHER, incarnation: 2, state: "suspect" },
      { actor: THIRD, incarnation: 0, state: "down" },
    ];
    world.swim.handle({ kind: "restore", members }, 0);
    expect(world.swim.members.map((member) => member.actor)).toEqual([PEER]);
    expect(world.swim.records).toHaveLength(2);
    expect(world.events()).toContainEqual({ kind: "connected" });
  });

  test("with Corrosion's timing a restored replica renews after 25 to 40 s, once", () => {
    const world = create(wanPreset);
    world.swim.handle({ kind: "restore", members: [alive(PEER)] }, 0);
    world.keepAlive(PEER, 24_900);
    expect(world.swim.stats.renewals).toBe(0);
    world.keepAlive(PEER, 15_200);
    expect(world.swim.stats.renewals).toBe(1);
    world.keepAlive(PEER, 60_000);
    expect(world.swim.stats.renewals).toBe(1);
  });

  test("losing the last member disconnects us and starts announcing anew", () => {
    const world = create();
    world.swim.handle({ kind: "start", bootstrap: [PEER.addr] }, 0);
    world.know(PEER);
    world.takeAll();
    world.tell(PEER, { actor: PEER, incarnation: 0, state: "down" });
    expect(world.events()).toEqual([{ kind: "memberDown", actor: PEER }, { kind: "disconnected" }]);
    expect(world.swim.isConnected).toBe(false);
    world.runFor(700);
    expect(world.sent("announce").map((packet) => packet.target.addr)).toContain(PEER.addr);
  });
});

test("gossip stops when the queue is empty", () => {
  const world = create();
  world.receive(from(PEER, { kind: "gossip" }, [alive(OTHER)]));
  world.drainGossip();
  world.takeAll();
  world.runFor(300);
  expect(world.sent("gossip")).toEqual([]);
});

test("an early tick does nothing", () => {
  const world = create();
  world.know(PEER);
  world.takeAll();
  const dueMs = world.swim.deadlineMs();
  world.swim.handle({ kind: "tick" }, dueMs - 0.5);
  expect(world.takeAll()).toEqual([]);
  expect(world.swim.deadlineMs()).toBe(dueMs);
});

test("a tick that comes far too late accuses nobody", () => {
  const world = create();
  world.know(PEER);
  world.runToNext("ping");
  const lateMs = world.nowMs + 60_000;
  world.swim.handle({ kind: "tick" }, lateMs);
  world.swim.handle(
    { kind: "received", packet: from(PEER, { kind: "ack", probe: 1 }), packetBytes: 77 },
    lateMs,
  );
  expect(world.swim.stats.oversleeps).toBe(1);
  expect(world.swim.memberById(PEER.id)?.state).toBe("alive");
});

/** Any inputs, however hostile: nothing throws, every packet fits, our address never changes. */
test("no sequence of inputs breaks the machine", () => {
  const anyActor = fc
    .tuple(fc.nat(5), fc.integer({ min: -3, max: 3 }))
    .map(([index, age]) => ({ ...actor(index), ts: SELF.ts + BigInt(age) * 16n }));
  const update = fc.record({
    actor: fc.oneof(anyActor, fc.constant(placeholderActor("10.0.0.1:8787"))),
    incarnation: fc.constantFrom(0, 1, 2, 65_535),
    state: fc.constantFrom<MemberState>("alive", "suspect", "down"),
  });
  const message = fc.oneof(
    fc.record({ kind: fc.constantFrom("ping", "ack"), probe: fc.nat(3) }),
    fc.record({
      kind: fc.constantFrom("pingReq", "indirectPing", "indirectAck", "forwardedAck"),
      subject: anyActor,
      probe: fc.nat(3),
    }),
    fc.record({ kind: fc.constantFrom("announce", "feed", "gossip", "broadcast", "turnUndead") }),
  ) as fc.Arbitrary<SwimMessage>;
  const packet = fc.record({
    source: anyActor,
    sourceIncarnation: fc.constantFrom(0, 1, 65_535),
    target: fc.oneof(fc.constant(SELF), anyActor),
    message,
    members: fc.option(fc.array(update, { maxLength: 6 })),
  });
  const input = fc.oneof(
    {
      weight: 8,
      arbitrary: packet.map((p): SwimInput => ({
        kind: "received",
        packet: p,
        packetBytes: packetBytes(p),
      })),
    },
    { weight: 4, arbitrary: fc.constant<SwimInput>({ kind: "tick" }) },
    { weight: 1, arbitrary: fc.constant<SwimInput>({ kind: "rejoin" }) },
    { weight: 1, arbitrary: fc.constant<SwimInput>({ kind: "start", bootstrap: ["x"] }) },
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(input, fc.nat(3_000)), { maxLength: 60 }), (steps) => {
      const { swim } = create();
      let nowMs = 0;
      for (const [step, waitMs] of steps) {
        nowMs += waitMs;
        const before = swim.self;
        swim.handle(step, nowMs);
        for (const output of swim.drain()) {
          if (output.kind !== "send") continue;
          expect(packetBytes(output.packet)).toBeLessThanOrEqual(1_150);
          expect(output.packet.source.id).toBe(SELF.id);
        }
        expect(swim.self.ts >= before.ts).toBe(true);
        expect(swim.self.addr).toBe(SELF.addr);
        expect(swim.memberById(SELF.id)).toBeUndefined();
        expect(swim.isConnected).toBe(swim.members.length > 0);
      }
    }),
    { numRuns: 300 },
  );
});

/** One machine, its time, and what it wanted done. */
class World {
  readonly swim: Swim;
  nowMs = 0;
  #packets: SwimPacket[] = [];
  #events: SwimEvent[] = [];

  constructor(config: SwimConfig, stampTs: (nowMs: number) => bigint) {
    this.swim = new Swim({ self: SELF, config, prng: createPrng(1), stampTs });
  }

  receive(packet: SwimPacket): void {
    const bytes = packetBytes(packet);
    this.swim.handle({ kind: "received", packet, packetBytes: bytes }, this.nowMs);
  }

  /** Makes an identity known as alive. */
  know(peer: Actor): void {
    this.receive(from(peer, { kind: "gossip" }));
  }

  tell(peer: Actor, update: MemberUpdate): void {
    this.receive({ ...from(peer, { kind: "gossip" }, [update]), target: this.swim.self });
  }

  runFor(durationMs: number): void {
    const endMs = this.nowMs + durationMs;
    while (this.swim.deadlineMs() <= endMs) this.#tick();
    this.nowMs = endMs;
  }

  /** Runs on while `peer` answers every ping. */
  keepAlive(peer: Actor, durationMs: number): void {
    const endMs = this.nowMs + durationMs;
    while (this.swim.deadlineMs() <= endMs) {
      this.#collect();
      const before = this.#packets.length;
      this.#tick();
      this.#collect();
      for (const packet of this.#packets.slice(before)) {
        if (packet.message.kind !== "ping" || packet.target.id !== peer.id) continue;
        const ack = from(peer, { kind: "ack", probe: packet.message.probe });
        this.receive({ ...ack, target: this.swim.self });
      }
    }
    this.nowMs = endMs;
  }

  /** Runs until a packet of this kind is sent, and returns it. */
  runToNext(kind: SwimMessage["kind"]): SwimPacket {
    this.takeAll();
    for (let tick = 0; tick < 1_000; tick += 1) {
      this.#tick();
      const found = this.sent(kind)[0];
      if (found !== undefined) return found;
    }
    throw new Error(`no ${kind} in 1,000 ticks`);
  }

  /** Runs until nothing is left to spread. */
  drainGossip(): void {
    this.runFor(lanPreset.gossip.periodMs * 5);
    this.takeAll();
  }

  /** Everything sent since the last `takeAll`. */
  packets(): SwimPacket[] {
    this.#collect();
    return this.#packets;
  }

  sent(kind: SwimMessage["kind"]): SwimPacket[] {
    return this.packets().filter((packet) => packet.message.kind === kind);
  }

  events(): SwimEvent[] {
    this.#collect();
    return this.#events;
  }

  takeAll(): (SwimPacket | SwimEvent)[] {
    this.#collect();
    const all = [...this.#packets, ...this.#events];
    this.#packets = [];
    this.#events = [];
    return all;
  }

  #tick(): void {
    this.nowMs = Math.max(this.nowMs, this.swim.deadlineMs());
    this.swim.handle({ kind: "tick" }, this.nowMs);
  }

  #collect(): void {
    for (const output of this.swim.drain()) {
      if (output.kind === "send") {
        expect(output.target).toBe(output.packet.target.addr);
        this.#packets.push(output.packet);
      } else {
        this.#events.push(output.event);
      }
    }
  }
}

function create(
  config: SwimConfig = lanPreset,
  stampTs = (nowMs: number) => SELF.ts + (BigInt(Math.ceil(nowMs) + 1) << 20n),
): World {
  return new World(config, stampTs);
}

function actor(index: number): Actor {
  return {
    id: `${String(index).padStart(8, "0")}-0000-4000-8000-000000000000`,
    addr: `10.0.0.${index}:8787`,
    ts: 0x684e_e180_0000_0000n,
    clusterId: 0,
    memberId: null,
  };
}

function alive(subject: Actor): MemberUpdate {
  return { actor: subject, incarnation: 0, state: "alive" };
}

function from(
  source: Actor,
  message: SwimMessage,
  members: readonly MemberUpdate[] | null = null,
): SwimPacket {
  return { source, sourceIncarnation: 0, target: SELF, message, members };
}
