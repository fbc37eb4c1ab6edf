import fc from "fast-check";
import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { hexToBytes, readVectors } from "../../../tests/wire-fixtures.ts";
import { decodeUniFrame } from "../wire/uni-payload.ts";
import { Plumtree } from "./plumtree.ts";
import { PLUMTREE_CORROSION, type PlumtreeConfig } from "./plumtree-types.ts";
import { actorId, change, member, sentMessages } from "./tree-fixture.ts";
import { BROADCAST_DEFAULTS, type BroadcastMember } from "./types.ts";

test("an own change goes at once to the eager peers, and is announced to the lazy ones", () => {
  const tree = createTree({ members: all(20) });
  tree.handle({ kind: "committed", changesets: [change(0, 1)] }, 0);
  const sent = sentMessages(tree.drain());
  expect(sent.map(({ target }) => target).toSorted()).toEqual(addresses(tree.links.eager));
  expect(sent.every(({ message }) => message.kind === "gossip" && message.round === 0)).toBe(true);
  expect(tree.deadlineMs()).toBe(150);
  tree.handle({ kind: "tick" }, 150);
  const announced = sentMessages(tree.drain());
  expect(announced.map(({ target }) => target).toSorted()).toEqual(addresses(tree.links.lazy));
  expect(announced[0]?.message).toEqual({
    kind: "iHave",
    sender: actorId(0),
    digests: [{ id: ID, round: 0 }],
  });
});

test("a change is passed on in the bytes in which it came, one round on, but not to its sender", () => {
  const tree = createTree({ self: 1, members: all(20) });
  const body = new Uint8Array([1, 0, 0, 0, 2, 0, 0, 0, 9, 9]);
  receive(tree, { from: 9, round: 4, body });
  const sent = sentMessages(tree.drain());
  expect(sent.length).toBeGreaterThan(0);
  expect(sent.map(({ target }) => target)).not.toContain(member(9).address);
  for (const { message } of sent) {
    expect(message).toMatchObject({ kind: "gossip", round: 5, sender: actorId(1) });
    expect(message.kind === "gossip" && message.body).toEqual({
      kind: "compressedChange",
      compressed: new Uint8Array([9, 9]),
    });
  }
});

test("a plain broadcast counts as round 1 from its origin", () => {
  const tree = createTree({ self: 5, members: all(20) });
  const changeset = change(1, 1);
  tree.handle({ kind: "received", changeset, payload: null, isNews: true }, 0);
  const rounds = sentMessages(tree.drain()).map(({ message }) =>
    message.kind === "gossip" ? message.round : -1,
  );
  expect(new Set(rounds)).toEqual(new Set([2]));
});

test("what is announced and does not come is asked for after 150 ms, then of another after 75", () => {
  const tree = createTree({ members: all(20) });
  announce(tree, { from: 7, round: 3, nowMs: 0 });
  announce(tree, { from: 8, round: 4, nowMs: 10 });
  expect(tree.deadlineMs()).toBe(150);
  tree.handle({ kind: "tick" }, 150);
  expect(sentMessages(tree.drain())).toEqual([graftTo(7, 3)]);
  tree.handle({ kind: "tick" }, 225);
  expect(sentMessages(tree.drain())).toEqual([graftTo(8, 4)]);
  tree.handle({ kind: "tick" }, 300);
  expect(sentMessages(tree.drain())).toEqual([]);
  expect(tree.stats.plumtree.missing).toBe(0);
});

test("what comes in time, or by sync, is not asked for", () => {
  let isKnown = false;
  const tree = createTree({ members: all(20), isKnown: () => isKnown });
  announce(tree, { from: 7, round: 3, nowMs: 0 });
  receive(tree, { from: 8, nowMs: 100 });
  tree.drain();
  announce(tree, { from: 7, round: 3, version: 2, nowMs: 0 });
  isKnown = true;
  tree.handle({ kind: "tick" }, 1000);
  expect(sentMessages(tree.drain()).filter(({ message }) => message.kind === "graft")).toEqual([]);
});

test("a Graft makes its sender eager and brings what it asks for, in the round first seen", () => {
  const tree = createTree({ self: 5, members: all(60) });
  receive(tree, { from: 0, round: 2 });
  tree.drain();
  const asking = all(60).findLast(({ actorId: id }) => !tree.links.eager.includes(id));
  const sender = asking?.actorId ?? "";
  const requests = [
    { id: ID, round: 3 },
    { id: { ...ID, version: 99 }, round: 3 },
  ];
  tree.handle(
    { kind: "plumtree", message: { kind: "graft", sender, wantsPayloads: true, requests } },
    1,
  );
  const [answer, ...others] = sentMessages(tree.drain());
  expect(others).toEqual([]);
  expect(answer?.target).toBe(asking?.address);
  expect(answer?.message).toMatchObject({ kind: "gossip", round: 2, id: ID });
  expect(tree.links.eager).toContain(sender);
  expect(tree.stats.plumtree.payloadNotCached).toBe(1);
});

test("a Prune makes its sender lazy, and it gets announcements only", () => {
  const tree = createTree({ members: all(20) });
  const sender = tree.links.eager[0] ?? "";
  tree.handle({ kind: "plumtree", message: { kind: "prune", sender, triggeredBy: null } }, 0);
  expect(tree.links.eager).not.toContain(sender);
  expect(tree.links.lazy).toContain(sender);
});

test("by Corrosion's rules the sixth copy is answered with a Prune, once a second", () => {
  const tree = createTree({ self: 5, members: all(60), plumtree: PLUMTREE_CORROSION });
  for (let from = 10; from < 20; from += 1) receive(tree, { from });
  const prunes = sentMessages(tree.drain()).filter(({ message }) => message.kind === "prune");
  expect(prunes.map(({ target }) => target)).toEqual(
    [16, 17, 18, 19].map((n) => member(n).address),
  );
  expect(prunes[0]?.message).toEqual({ kind: "prune", sender: actorId(5), triggeredBy: ID });
  receive(tree, { from: 19 });
  expect(tree.stats.plumtree.pruneSuppressed).toBe(1);
});

test("by Corrosion's rules a locked neighbour is neither pruned nor obeyed", () => {
  const tree = createTree({ self: 5, members: all(60), plumtree: PLUMTREE_CORROSION });
  expect(tree.links.eager).toEqual(expect.arrayContaining([actorId(4), actorId(6)]));
  for (let from = 10; from < 17; from += 1) receive(tree, { from });
  tree.drain();
  receive(tree, { from: 4 });
  expect(tree.drain()).toEqual([]);
  const message = { kind: "prune", sender: actorId(4), triggeredBy: null } as const;
  tree.handle({ kind: "plumtree", message }, 0);
  expect(tree.links.eager).toContain(actorId(4));
});

test("the ring of neighbours is announced to whatever they prune", () => {
  const tree = createTree({ self: 5, members: all(60) });
  for (const n of [4, 6]) {
    const message = { kind: "prune", sender: actorId(n), triggeredBy: null } as const;
    tree.handle({ kind: "plumtree", message }, 0);
  }
  expect(tree.links.lazy).toEqual(expect.arrayContaining([actorId(4), actorId(6)]));
});

test("an announced path that is shorter by more than the threshold is taken", () => {
  const plumtree = { ...PLUMTREE_CORROSION, optimizationThreshold: 3 };
  const tree = createTree({ self: 5, members: all(60), plumtree });
  receive(tree, { from: 10, round: 9 });
  tree.drain();
  announce(tree, { from: 11, origin: 0, round: 6, nowMs: 0 });
  expect(sentMessages(tree.drain())).toEqual([]);
  announce(tree, { from: 12, origin: 0, round: 5, nowMs: 0 });
  expect(sentMessages(tree.drain()).map(({ message }) => message)).toEqual([
    { kind: "graft", sender: actorId(5), wantsPayloads: false, requests: [] },
  ]);
});

test("urgent changes overtake what waits for company", () => {
  const tree = createTree({ members: all(2) });
  tree.handle({ kind: "committed", changesets: [change(0, 1)] }, 0);
  tree.drain();
  tree.handle({ kind: "committed", changesets: [change(0, 2)] }, 1);
  expect(tree.drain()).toEqual([]);
  const deletion = change(0, 3, { cid: "-1", cl: 2, val: null });
  tree.handle({ kind: "committed", changesets: [deletion] }, 1);
  const sent = sentMessages(tree.drain());
  expect(sent.map(({ isUrgent }) => isUrgent)).toEqual([true]);
});

test("a relay judges urgency by itself and lets an urgent change overtake", () => {
  const tree = createTree({ self: 5, members: all(20) });
  receive(tree, { from: 0 });
  tree.drain();
  const changeset = change(1, 2, { cid: "-1", cl: 2, val: null });
  tree.handle({ kind: "received", changeset, payload: null, isNews: true }, 0);
  const sent = sentMessages(tree.drain());
  expect(sent.length).toBeGreaterThan(0);
  expect(sent.every(({ isUrgent }) => isUrgent)).toBe(true);
});

test("a replica that leaves tells its eager peers to stop", () => {
  const tree = createTree({ members: all(20) });
  const { eager } = tree.links;
  tree.handle({ kind: "leave" }, 0);
  const sent = sentMessages(tree.drain());
  expect(sent.map(({ target }) => target).toSorted()).toEqual(addresses(eager));
  expect(sent[0]?.message).toEqual({ kind: "prune", sender: actorId(0), triggeredBy: null });
});

test("a stream that failed is made up for by an announcement to that peer alone", () => {
  const tree = createTree({ members: all(3) });
  tree.handle({ kind: "committed", changesets: [change(0, 1)] }, 0);
  const [send] = tree.drain().filter((output) => output.kind === "send");
  tree.handle({ kind: "tick" }, 150);
  tree.drain();
  tree.handle({ kind: "sent", id: send?.id ?? 0, ok: false }, 200);
  tree.handle({ kind: "tick" }, 350);
  const sent = sentMessages(tree.drain());
  expect(sent.map(({ target, message }) => [target, message.kind])).toEqual([
    [send?.target, "iHave"],
  ]);
});

test("messages of strangers change nothing", () => {
  const tree = createTree({ members: all(20) });
  const before = tree.links;
  const sender = actorId(999);
  tree.handle({ kind: "plumtree", message: { kind: "prune", sender, triggeredBy: null } }, 0);
  const digests = [{ id: ID, round: 1 }];
  tree.handle({ kind: "plumtree", message: { kind: "iHave", sender, digests } }, 0);
  tree.handle({ kind: "tick" }, 1000);
  expect(tree.drain()).toEqual([]);
  expect(tree.links).toEqual(before);
  expect(tree.stats.plumtree.strangers).toBe(2);
});

test("captured messages of Corrosion's Plumtree are taken, and its changes passed on", () => {
  const senders = new Set<string>();
  const decoded = readVectors<readonly { hex: string }[]>("broadcast-plumtree.json").map(
    ({ hex }) => {
      const frame = decodeUniFrame(hexToBytes(hex));
      if (!frame.ok || frame.value.payload.kind !== "plumtree") throw new Error("unreadable");
      senders.add(frame.value.payload.message.sender);
      return { message: frame.value.payload.message, body: frame.value.body };
    },
  );
  const members = [...senders].map((id, n) => ({ ...member(n + 1), actorId: id }));
  const tree = createTree({ members });
  for (const { message, body } of decoded) {
    if (message.kind !== "gossip") {
      tree.handle({ kind: "plumtree", message }, 0);
      continue;
    }
    if (message.body.kind !== "change") continue;
    const [changeset] = message.body.changesets;
    if (changeset === undefined) continue;
    const isNews = !tree.hasSeen(changeset);
    tree.handle({ kind: "received", changeset, payload: null, body, gossip: message, isNews }, 0);
  }
  expect(tree.stats.plumtree.strangers).toBe(0);
  expect(tree.stats.relayed).toBeGreaterThan(0);
  expect(tree.stats.plumtree.cacheEntries).toBe(tree.stats.relayed);
});

test("whatever its peers say, what it remembers and what waits stays bounded", () => {
  const limits = { cacheMax: 10, cacheBytesMax: 2000 };
  const numbers = fc.integer({ min: 1, max: 40 });
  const events = fc.array(
    fc.record({
      kind: fc.constantFrom("gossip", "iHave", "graft", "prune"),
      from: numbers,
      version: numbers,
    }),
    { maxLength: 200 },
  );
  fc.assert(
    fc.property(events, (list) => {
      const tree = createTree({ members: all(30), plumtree: limits, laneBytesMax: 5000 });
      for (const [at, { kind, from, version }] of list.entries()) {
        const id = { ...ID, actorId: actorId(from % 7), version };
        const sender = actorId(from);
        if (kind === "gossip") receive(tree, { from, version, nowMs: at });
        else if (kind === "iHave") announce(tree, { from, version, round: 1, nowMs: at });
        else if (kind === "prune") {
          tree.handle({ kind: "plumtree", message: { kind, sender, triggeredBy: id } }, at);
        } else {
          const requests = [{ id, round: 1 }];
          const message = { kind: "graft", sender, wantsPayloads: true, requests } as const;
          tree.handle({ kind: "plumtree", message }, at);
        }
      }
      const { plumtree, backlogBytes } = tree.stats;
      expect(plumtree.cacheEntries).toBeLessThanOrEqual(10);
      expect(plumtree.missing).toBeLessThanOrEqual(10);
      expect(plumtree.eagerPeers + plumtree.lazyPeers).toBeLessThanOrEqual(30);
      expect(backlogBytes).toBeLessThanOrEqual(30 * 5000);
    }),
    { numRuns: 50 },
  );
});

const ID = {
  kind: "full",
  actorId: actorId(0),
  version: 1,
  seqs: { start: 0, end: 0 },
  lastSeq: 0,
} as const;

function all(count: number): BroadcastMember[] {
  return Array.from({ length: count }, (_, n) => member(n));
}

function addresses(ids: readonly string[]): string[] {
  return all(100)
    .filter(({ actorId: id }) => ids.includes(id))
    .map(({ address }) => address)
    .toSorted();
}

function createTree(options: {
  readonly self?: number;
  readonly members: readonly BroadcastMember[];
  readonly plumtree?: Partial<PlumtreeConfig>;
  readonly laneBytesMax?: number;
  readonly isKnown?: () => boolean;
}): Plumtree {
  const self = options.self ?? 0;
  const tree = new Plumtree(
    {
      ...BROADCAST_DEFAULTS,
      actorId: actorId(self),
      clusterId: 0,
      laneBytesMax: options.laneBytesMax ?? BROADCAST_DEFAULTS.laneBytesMax,
      plumtree: { ...BROADCAST_DEFAULTS.plumtree, ...options.plumtree },
    },
    { prng: createPrng(1), isKnown: options.isKnown ?? (() => false) },
  );
  tree.handle({ kind: "members", members: options.members }, 0);
  return tree;
}

function receive(
  tree: Plumtree,
  of: { from: number; round?: number; version?: number; nowMs?: number; body?: Uint8Array },
): void {
  const { from, round = 1, version = 1, nowMs = 0, body = null } = of;
  // The origin is replica 0, which these trees are not, or it would be ignored.
  const changeset = change(0, version);
  const isNews = !tree.hasSeen(changeset);
  const gossip = { sender: actorId(from), round };
  tree.handle({ kind: "received", changeset, payload: null, body, gossip, isNews }, nowMs);
}

function announce(
  tree: Plumtree,
  of: { from: number; origin?: number; round: number; version?: number; nowMs: number },
): void {
  const { from, origin = 1, round, version = 1, nowMs } = of;
  const digests = [{ id: { ...ID, actorId: actorId(origin), version }, round }];
  tree.handle(
    { kind: "plumtree", message: { kind: "iHave", sender: actorId(from), digests } },
    nowMs,
  );
}

function graftTo(n: number, round: number) {
  const requests = [{ id: { ...ID, actorId: actorId(1) }, round }];
  const message = { kind: "graft", sender: actorId(0), wantsPayloads: true, requests };
  return { target: member(n).address, isUrgent: false, message };
}
