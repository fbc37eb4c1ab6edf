import { describe, expect, test } from "vitest";

import type { ActorId, ApplyOutcome, Changeset, FullChangeset } from "../../types.ts";
import type { SyncState } from "../wire/types.ts";
import { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import type { SyncClientInput, SyncClientOutput } from "./client-types.ts";
import { SYNC_CLIENT_WAN, type SyncClientConfig } from "./config.ts";
import { SyncClient } from "./sync-client.ts";
import { createPrng } from "#base/prng.ts";

describe("a session", () => {
  test("greets with start and clock, asks newest first, and ends with FIN", () => {
    const client = new Rig();
    client.startRound([THEM]);
    expect(client.put({ kind: "opened", sessionId: 1 })).toMatchObject([
      { kind: "send", message: { kind: "start", actorId: US, clusterId: 7 } },
      { kind: "send", message: { kind: "clock", ts: 42n } },
    ]);
    client.put(say(1, { kind: "state", state: stateOf([[A, 250]]) }));
    expect(client.put(say(1, { kind: "clock", ts: 9n }))).toEqual([
      { kind: "clock", ts: 9n },
      {
        kind: "send",
        sessionId: 1,
        message: {
          kind: "request",
          requests: [
            {
              actorId: A,
              needs: [full(151, 250), full(51, 150), full(1, 50)],
            },
          ],
        },
      },
      { kind: "finish", sessionId: 1 },
    ]);
  });

  test("is dropped when the server has nothing that we lack", () => {
    const client = new Rig();
    client.books.recordComplete(A, { start: 1, end: 5 });
    client.startRound([THEM]);
    const outputs = client.greet(1, stateOf([[A, 5]]));
    expect(outputs).toContainEqual({ kind: "abort", sessionId: 1 });
    expect(client.client.isRunning).toBe(false);
  });

  test("with a server that knows more of us than we do is reported, once for each head", () => {
    const client = new Rig();
    for (const [index, ownHead] of [5, 5, 6].entries()) {
      if (index > 0) client.nowMs = client.client.deadlineMs();
      client.startRound([THEM]);
      client.greet(index + 1, stateOf([[US, ownHead]]));
    }
    const reports = client.log.flatMap((output) =>
      output.kind === "notify" && output.event.kind === "ownVersionsUnknown" ? [output.event] : [],
    );
    expect(reports).toMatchObject([
      { ownHead: 5, head: 0 },
      { ownHead: 6, head: 0 },
    ]);
  });

  test("asks for our own versions while they are in doubt, and says what the server knows", () => {
    const client = new Rig();
    client.put({ kind: "learnOwn", isOn: true });
    client.startRound([THEM]);
    const outputs = client.greet(1, stateOf([[US, 5]]));
    expect(outputs).toContainEqual({ kind: "compared", peer: THEM, ownHead: 5 });
    expect(outputs).toContainEqual({
      kind: "send",
      sessionId: 1,
      message: { kind: "request", requests: [{ actorId: US, needs: [full(1, 5)] }] },
    });
  });

  test("asks every member within one round while own versions are in doubt, ten at a time", () => {
    const client = new Rig();
    client.put({ kind: "learnOwn", isOn: true });
    const members = Array.from({ length: 25 }, (_, at) => `${THEM.slice(0, -2)}${at + 10}`);
    client.startRound(members);
    const opened = new Map<number, ActorId>();
    const ended = new Set<number>();
    let atOnceMax = 0;
    for (let sessionId = 1; sessionId <= members.length; sessionId += 1) {
      for (const output of client.log.splice(0)) {
        if (output.kind === "open") opened.set(output.sessionId, output.peer.actorId);
      }
      atOnceMax = Math.max(atOnceMax, opened.size - ended.size);
      client.greet(sessionId, stateOf([[US, 0]]));
      ended.add(sessionId);
    }
    expect(new Set(opened.values())).toEqual(new Set(members));
    expect(opened.size).toBe(members.length);
    expect(atOnceMax).toBeGreaterThan(3);
    expect(atOnceMax).toBeLessThanOrEqual(10);
    expect(client.client.stats.rounds).toBe(1);
    expect(client.client.isRunning).toBe(false);
  });

  test.each(["maxConcurrencyReached", "differentCluster"] as const)(
    "ends on a rejection because of %s",
    (reason) => {
      const client = new Rig();
      client.startRound([THEM]);
      client.put({ kind: "opened", sessionId: 1 });
      const outputs = client.put(say(1, { kind: "rejection", reason }));
      expect(outputs[0]).toEqual({ kind: "abort", sessionId: 1 });
      expect(client.client.isRunning).toBe(false);
    },
  );

  test("that stays silent after the opening is given up", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.put({ kind: "opened", sessionId: 1 });
    const outputs = client.tickAt(client.client.deadlineMs());
    expect(outputs).toContainEqual({ kind: "abort", sessionId: 1 });
    expect(client.client.stats.sessionsFailed).toBe(1);
  });

  test("in which the server asks us something is given up", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.put({ kind: "opened", sessionId: 1 });
    const outputs = client.put(say(1, { kind: "request", requests: [] }));
    expect(outputs[0]).toEqual({ kind: "abort", sessionId: 1 });
  });

  test("writes off what a silent server leaves open, then goes on with the rest", () => {
    const client = new Rig({ openVersionsStart: 100, openVersionsMax: 100 });
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 150]]));
    const outputs = client.tickAt(client.client.deadlineMs());
    expect(asked(outputs)).toEqual([[A, 1, 50]]);
  });
});

describe("several servers", () => {
  test("are asked different versions", () => {
    const client = new Rig({ openVersionsStart: 400 });
    client.startRound([THEM, OTHER]);
    const outputs = [
      ...client.greet(1, stateOf([[A, 1000]])),
      ...client.greet(2, { ...stateOf([[A, 1000]]), actorId: OTHER }),
    ];
    const versions = asked(outputs).flatMap(([, start, end]) => integers(start, end));
    expect(new Set(versions).size).toBe(versions.length);
  });

  test("take over what a broken session left open", () => {
    const client = new Rig({ openVersionsStart: 100, openVersionsMax: 200, pieceVersionsMax: 50 });
    client.startRound([THEM, OTHER]);
    client.greet(1, stateOf([[A, 300]]));
    client.greet(2, stateOf([[A, 300]]));
    client.put({ kind: "broken", sessionId: 1 });
    const seen = new Set<number>();
    // The second server answers whatever it is asked until it has been asked everything.
    for (let turn = 0; turn < 20; turn += 1) {
      for (const [, start, end] of client.askedOf(2)) {
        for (const version of integers(start, end)) {
          if (seen.has(version)) continue;
          seen.add(version);
          client.put(say(2, { kind: "changesets", changesets: [whole(version)] }));
        }
      }
    }
    expect([...seen].sort((a, b) => a - b)).toEqual(integers(1, 300));
  });
});

describe("servers that join a round", () => {
  test("are members that become known while much is left to ask", () => {
    const client = new Rig({ openVersionsStart: 100, openVersionsMax: 100 });
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 1000]]));
    const peers = [THEM, OTHER].map((actorId) => ({ actorId, address: "192.0.2.1:1", ring: 0 }));
    expect(client.put({ kind: "candidates", peers })).toMatchObject([
      { kind: "open", sessionId: 2, peer: { actorId: OTHER } },
    ]);
    expect(client.put({ kind: "candidates", peers })).toEqual([]);
  });

  test("are none when everything has been asked", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 10]]));
    const peers = [THEM, OTHER].map((actorId) => ({ actorId, address: "192.0.2.1:1", ring: 0 }));
    expect(client.put({ kind: "candidates", peers })).toEqual([]);
  });
});

describe("answers", () => {
  test("go to the store in one batch at a time, growing while the store is busy", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 10]]));
    const first = client.put(answers(1, [10]));
    expect(first).toEqual([{ kind: "apply", batchId: 1, changesets: [whole(10)] }]);
    expect(client.put(answers(1, [9, 8]))).toEqual([]);
    expect(client.apply(1, [whole(10)])).toEqual([
      { kind: "apply", batchId: 2, changesets: [whole(9), whole(8)] },
    ]);
  });

  test("a full second batch goes out while the first is under way", () => {
    const client = new Rig({ applyBatchMax: 3 });
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 10]]));
    client.put(answers(1, [10]));
    expect(client.put(answers(1, [9, 8, 7, 6]))).toMatchObject([{ kind: "apply", batchId: 2 }]);
    expect(client.put(answers(1, [5, 4, 3, 2]))).toEqual([]);
  });

  test("an Empty wider than what was asked is cut down to it", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 10]]));
    const empty = (end: number): Changeset => ({
      kind: "empty",
      actorId: A,
      versions: { start: 8, end },
      ts: null,
    });
    const outputs = client.put(say(1, { kind: "changesets", changesets: [empty(5000)] }));
    expect(outputs).toEqual([{ kind: "apply", batchId: 1, changesets: [empty(10)] }]);
  });

  test("that nobody asked for, and known ones, are dropped", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 10]]));
    expect(client.put(answers(1, [11]))).toEqual([]);
    client.books.recordComplete(A, { start: 10, end: 10 });
    expect(client.put(answers(1, [10]))).toEqual([]);
    expect(client.client.stats.changesetsDropped).toBe(2);
  });
});

describe("a version with a value that nothing here can hold", () => {
  const answer = (sessionId: number, version: number): Say => {
    const { seqs, lastSeq } = whole(version);
    const reason = "text-malformed";
    return say(sessionId, { kind: "unreadable", actorId: A, version, seqs, lastSeq, reason });
  };

  test("is done without: what else was asked of the same server still comes", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 3]]));
    client.put(answers(1, [3]));
    expect(client.put(answer(1, 2))).toEqual([]);
    expect(client.apply(1, [whole(3)])).toEqual([]);
    expect(client.put(answers(1, [1]))).toMatchObject([{ kind: "apply", batchId: 2 }]);
    client.put({ kind: "finished", sessionId: 1 });
    client.apply(2, [whole(1)]);
    expect(client.client.isRunning).toBe(false);
    expect(client.books.gaps(A)).toEqual([{ start: 2, end: 2 }]);
    expect(client.client.stats).toMatchObject({ changesetsUnreadable: 1, sessionsFailed: 0 });
  });

  test("is not asked for again and again", () => {
    const client = new Rig();
    const hourMs = 3_600_000;
    let asks = 0;
    client.startRound([THEM]);
    for (let sessionId = 1; client.nowMs < 6 * hourMs; sessionId += 1) {
      if (asked(client.greet(sessionId, stateOf([[A, 1]]))).length > 0) {
        asks += 1;
        client.put(answer(sessionId, 1));
        client.put({ kind: "finished", sessionId });
      }
      expect(client.client.isRunning).toBe(false);
      client.tickAt(client.client.deadlineMs());
    }
    expect(asks).toBeGreaterThan(10);
    expect(asks).toBeLessThan(20);
  });

  test("that nobody asked for changes nothing", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 1]]));
    expect(client.put(answer(1, 7))).toEqual([]);
    expect(client.client.setAside.size).toBe(0);
  });
});

describe("back-pressure", () => {
  test("open versions stay within a window that grows with the answers", () => {
    const client = new Rig({ openVersionsStart: 100, openVersionsMax: 400, pieceVersionsMax: 10 });
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 10_000]]));
    expect(openAfter(client)).toBe(100);
    client.put(answers(1, integers(9901, 10_000).toReversed()));
    const grown = openAfter(client) - 100;
    expect(grown).toBeGreaterThan(100);
    expect(grown).toBeLessThanOrEqual(200);
  });

  test("nothing is asked while too much waits for the store; at twice that reading stops", () => {
    const client = new Rig({ openVersionsStart: 10, pieceVersionsMax: 10, pendingChangesMax: 20 });
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 1000]]));
    const large = integers(991, 1000).map((version) => whole(version, 5));
    const outputs = client.put(say(1, { kind: "changesets", changesets: large }));
    expect(asked(outputs)).toEqual([]);
    expect(outputs).toContainEqual({ kind: "reading", isPaused: true });
    const after = client.apply(1, large);
    expect(after).toContainEqual({ kind: "reading", isPaused: false });
    expect(asked(after).length).toBeGreaterThan(0);
  });
});

describe("rounds", () => {
  test("that bring nothing come at doubling pauses up to the longest", () => {
    const client = new Rig();
    client.startRound([THEM]);
    const pauses: number[] = [];
    for (let round = 1; round <= 6; round += 1) {
      client.put({ kind: "openFailed", sessionId: round });
      pauses.push(client.client.deadlineMs() - client.nowMs);
      client.tickAt(client.client.deadlineMs());
    }
    expect(pauses).toEqual([2000, 4000, 8000, 15_000, 15_000, 15_000]);
  });

  test("ask one server after a round in which nothing was missing, several after any other", () => {
    const client = new Rig();
    client.books.recordComplete(A, { start: 1, end: 5 });
    client.startRound([THEM, SECOND, THIRD]);
    const opened = (outputs: readonly SyncClientOutput[]): number[] =>
      outputs.flatMap((output) => (output.kind === "open" ? [output.sessionId] : []));
    expect(opened(client.log)).toEqual([1, 2, 3]);
    for (const sessionId of [1, 2, 3]) client.greet(sessionId, stateOf([[A, 5]]));
    expect(opened(client.tickAt(client.client.deadlineMs()))).toEqual([4]);
    client.put({ kind: "openFailed", sessionId: 4 });
    expect(opened(client.tickAt(client.client.deadlineMs()))).toEqual([5, 6, 7]);
    for (const sessionId of [5, 6, 7]) client.greet(sessionId, stateOf([[A, 5]]));
    client.put({ kind: "hint" });
    expect(opened(client.tickAt(client.client.deadlineMs()))).toEqual([8, 9, 10]);
  });

  test("a quiet round that finds something missing asks further servers at once", () => {
    const client = new Rig();
    client.startRound([THEM, SECOND, THIRD]);
    for (const sessionId of [1, 2, 3]) client.greet(sessionId, stateOf([]));
    client.tickAt(client.client.deadlineMs());
    const outputs = client.greet(4, stateOf([[A, 50_000]]));
    expect(outputs.filter((output) => output.kind === "open")).toHaveLength(2);
  });

  test("a hint brings the next one forward", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.put({ kind: "openFailed", sessionId: 1 });
    client.put({ kind: "hint" });
    expect(client.client.deadlineMs() - client.nowMs).toBe(SYNC_CLIENT_WAN.hintDelayMs);
  });

  test("do not end before everything received is applied", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 1]]));
    client.put(answers(1, [1]));
    client.put({ kind: "finished", sessionId: 1 });
    expect(client.client.isRunning).toBe(true);
    const outputs = client.apply(1, [whole(1)]);
    expect(outputs).toMatchObject([
      { kind: "notify", event: { kind: "roundFinished", receivedVersions: 1, appliedVersions: 1 } },
    ]);
    expect(client.client.deadlineMs() - client.nowMs).toBe(SYNC_CLIENT_WAN.backoffMinMs);
  });

  test("refused changesets do not count as progress", () => {
    const client = new Rig();
    client.startRound([THEM]);
    client.greet(1, stateOf([[A, 1]]));
    client.put(answers(1, [1]));
    client.put({ kind: "finished", sessionId: 1 });
    const refused = { kind: "refused", changeset: whole(1), reason: "unknown table" } as const;
    client.put({ kind: "applied", batchId: 1, outcomes: [refused] });
    expect(client.client.deadlineMs() - client.nowMs).toBe(2 * SYNC_CLIENT_WAN.backoffMinMs);
  });

  test("without candidates there is nothing to wait for", () => {
    expect(new Rig().client.deadlineMs()).toBe(Number.POSITIVE_INFINITY);
  });
});

const US = "11111111-0000-4000-8000-000000000000";
const THEM = "22222222-0000-4000-8000-000000000000";
const SECOND = "22222222-0000-4000-8000-00000000000e";
const THIRD = "22222222-0000-4000-8000-00000000000f";
const OTHER = "33333333-0000-4000-8000-000000000000";
const A = "aaaaaaaa-0000-4000-8000-000000000000";

/** A client with its books and a clock, and the requests seen so far. */
class Rig {
  readonly books = new Bookkeeping();
  readonly client: SyncClient;
  nowMs = 1000;
  readonly log: SyncClientOutput[] = [];

  constructor(config: Partial<SyncClientConfig> = {}) {
    this.client = new SyncClient({
      identity: { actorId: US, clusterId: 7 },
      config: { ...SYNC_CLIENT_WAN, ...config },
      books: this.books,
      prng: createPrng(1),
      stamp: () => 42n,
    });
  }

  put(input: SyncClientInput): SyncClientOutput[] {
    this.client.handle(input, this.nowMs);
    const outputs = this.client.drain();
    this.log.push(...outputs);
    return outputs.filter(
      (output) => output.kind !== "notify" || output.event.kind === "roundFinished",
    );
  }

  tickAt(atMs: number): SyncClientOutput[] {
    this.nowMs = atMs;
    return this.put({ kind: "tick" });
  }

  startRound(actorIds: readonly ActorId[]): void {
    const peers = actorIds.map((actorId) => ({ actorId, address: "192.0.2.1:1", ring: 0 }));
    this.put({ kind: "candidates", peers });
    this.put({ kind: "tick" });
  }

  greet(sessionId: number, state: SyncState): SyncClientOutput[] {
    this.put({ kind: "opened", sessionId });
    this.put(say(sessionId, { kind: "state", state }));
    return this.put(say(sessionId, { kind: "clock", ts: 1n }));
  }

  apply(batchId: number, changesets: readonly Changeset[]): SyncClientOutput[] {
    const outcomes = changesets.map((changeset): ApplyOutcome => ({
      kind: "applied",
      changeset,
      rowsChanged: 1,
    }));
    for (const outcome of outcomes) this.books.follow(outcome);
    return this.put({ kind: "applied", batchId, outcomes });
  }

  askedOf(sessionId: number): [ActorId, number, number][] {
    return asked(
      this.log.filter((output) => output.kind === "send" && output.sessionId === sessionId),
    );
  }
}

type Say = Extract<SyncClientInput, { kind: "message" }>;

function say(sessionId: number, message: Say["message"]): Say {
  return { kind: "message", sessionId, message };
}

function answers(sessionId: number, versions: readonly number[]): Say {
  return say(sessionId, { kind: "changesets", changesets: versions.map((each) => whole(each)) });
}

function whole(version: number, rows = 1): FullChangeset {
  const changes = Array.from({ length: rows }, (_, seq) => ({
    table: "t",
    pk: new Uint8Array([1, 9, version & 255]),
    cid: "v",
    val: "x",
    colVersion: 1,
    seq,
    cl: 1,
  }));
  const lastSeq = rows - 1;
  const seqs = { start: 0, end: lastSeq };
  return { kind: "full", actorId: A, version, changes, seqs, lastSeq, ts: 1n };
}

function stateOf(heads: readonly (readonly [ActorId, number])[]): SyncState {
  return { ...new Bookkeeping().syncState(THEM), heads: new Map(heads) };
}

function full(start: number, end: number): unknown {
  return { kind: "full", versions: { start, end } };
}

function asked(outputs: readonly SyncClientOutput[]): [ActorId, number, number][] {
  const found: [ActorId, number, number][] = [];
  for (const output of outputs) {
    if (output.kind !== "send" || output.message.kind !== "request") continue;
    for (const { actorId, needs } of output.message.requests) {
      for (const need of needs) {
        if (need.kind === "full") found.push([actorId, need.versions.start, need.versions.end]);
      }
    }
  }
  return found;
}

function openAfter(rig: Rig): number {
  return rig.askedOf(1).reduce((total, [, start, end]) => total + end - start + 1, 0);
}

function integers(start: number, end: number): number[] {
  return Array.from({ length: end - start + 1 }, (_, at) => start + at);
}
