import { describe, expect, test } from "vitest";

import type { Changeset, FullChangeset, SyncNeed } from "../../types.ts";
import { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import { SYNC_SERVER_DEFAULTS, type SyncServerConfig } from "./config.ts";
import { SyncServer, type SyncServerInput, type SyncServerOutput } from "./sync-server.ts";

describe("the greeting", () => {
  test("is answered with our state and clock", () => {
    const server = new Rig();
    expect(server.greet(1)).toMatchObject([
      { kind: "clock", ts: 5n },
      { kind: "send", message: { kind: "state", state: { heads: new Map([[A, 1000]]) } } },
      { kind: "send", message: { kind: "clock", ts: 42n } },
    ]);
  });

  test("of another cluster is rejected", () => {
    const server = new Rig();
    server.put({ kind: "accepted", sessionId: 1 });
    expect(server.put(start(1, 8))).toEqual([
      { kind: "send", sessionId: 1, message: { kind: "rejection", reason: "differentCluster" } },
      { kind: "finish", sessionId: 1 },
    ]);
  });

  test("beyond the greatest number of sessions is rejected until one ends", () => {
    const server = new Rig({ sessionsMax: 1 });
    server.greet(1);
    expect(server.greet(2)).toContainEqual({
      kind: "send",
      sessionId: 2,
      message: { kind: "rejection", reason: "maxConcurrencyReached" },
    });
    server.put({ kind: "broken", sessionId: 1 });
    expect(server.greet(3)).toMatchObject([{ kind: "clock" }, { kind: "send" }, { kind: "send" }]);
  });

  test("takes the place of the client that has been silent for longest, if that is long", () => {
    const server = new Rig({ sessionsMax: 2 });
    server.greet(1);
    server.nowMs += 1_000;
    server.greet(2);
    server.nowMs += SYNC_SERVER_DEFAULTS.idleGivesWayMs - 1_001;
    const rejection = { kind: "rejection", reason: "maxConcurrencyReached" };
    expect(server.greet(3)).toContainEqual({ kind: "send", sessionId: 3, message: rejection });
    server.nowMs += 1;
    expect(server.greet(4)).toMatchObject([
      { kind: "clock" },
      { kind: "abort", sessionId: 1 },
      { kind: "send", sessionId: 4, message: { kind: "state" } },
      { kind: "send", sessionId: 4 },
    ]);
    expect(server.greet(5)).toContainEqual({ kind: "send", sessionId: 5, message: rejection });
  });

  test("takes no place of a client that is owed something", () => {
    const server = new Rig({ sessionsMax: 1, sendTimeoutMs: 60_000 });
    server.greet(1);
    server.ask(1, [full(5, 5)]);
    server.nowMs += 30_000;
    const rejected = [{ kind: "clock" }, { kind: "send", message: { kind: "rejection" } }];
    expect(server.greet(2)).toMatchObject([...rejected, { kind: "finish" }]);
    server.answer(1, [whole(5)]);
    server.nowMs += 30_000;
    expect(server.greet(3)).toMatchObject([...rejected, { kind: "finish" }]);
    server.put({ kind: "sent", sessionId: 1, frames: 1, tookMs: 1 });
    server.nowMs += SYNC_SERVER_DEFAULTS.idleGivesWayMs;
    expect(server.greet(4)).toMatchObject([
      { kind: "clock" },
      { kind: "abort", sessionId: 1 },
      {},
      {},
    ]);
  });

  test("that does not come in time ends the stream", () => {
    const server = new Rig();
    server.put({ kind: "accepted", sessionId: 1 });
    server.nowMs = server.server.deadlineMs();
    expect(server.put({ kind: "tick" })).toEqual([{ kind: "abort", sessionId: 1 }]);
    expect(server.server.deadlineMs()).toBe(Number.POSITIVE_INFINITY);
  });

  test("too many streams that say nothing are refused", () => {
    const server = new Rig({ handshakesMax: 1 });
    server.put({ kind: "accepted", sessionId: 1 });
    expect(server.put({ kind: "accepted", sessionId: 2 })).toEqual([
      { kind: "abort", sessionId: 2 },
    ]);
  });

  test.each([
    ["a request before the greeting", { kind: "request", requests: [] }],
    ["a clock before the start", { kind: "clock", ts: 1n }],
    ["an answer", { kind: "changesets", changesets: [] }],
  ] as const)("%s ends the stream", (_claim, message) => {
    const server = new Rig();
    server.put({ kind: "accepted", sessionId: 1 });
    expect(server.put({ kind: "message", sessionId: 1, message })).toEqual([
      { kind: "abort", sessionId: 1 },
    ]);
  });
});

describe("serving", () => {
  test("reads a need in pieces from the newest version down, a few at a time", () => {
    const server = new Rig({ readVersionsMax: 100, readsMax: 2 });
    server.greet(1);
    const first = server.ask(1, [full(1, 250)]);
    expect(reads(first)).toEqual([full(151, 250), full(51, 150)]);
    expect(reads(server.answer(1, []))).toEqual([full(1, 50)]);
  });

  test("what an answer did not come to is read next, until an answer says nothing", () => {
    const server = new Rig({ readVersionsMax: 100, readsMax: 1 });
    server.greet(1);
    server.ask(1, [full(1, 100), full(200, 200)]);
    expect(reads(server.answer(1, [whole(100), whole(99)]))).toEqual([full(1, 98)]);
    const versions = { start: 50, end: 97 };
    const empty: Changeset = { kind: "empty", actorId: A, versions, ts: null };
    expect(reads(server.answer(2, [whole(98), empty]))).toEqual([full(1, 49)]);
    expect(reads(server.answer(3, []))).toEqual([full(200, 200)]);
  });

  test("a need is cut at our head and one beyond it is skipped", () => {
    const server = new Rig();
    server.greet(1);
    const needs = [full(990, Number.MAX_SAFE_INTEGER), full(2000, 3000)];
    expect(reads(server.ask(1, needs))).toEqual([full(990, 1000)]);
  });

  test("an actor that we do not know is skipped", () => {
    const server = new Rig();
    server.greet(1);
    const requests = [{ actorId: CLIENT, needs: [full(1, 5)] }];
    expect(
      server.put({ kind: "message", sessionId: 1, message: { kind: "request", requests } }),
    ).toEqual([]);
  });

  test("stops reading while the stream does not take what was sent", () => {
    const server = new Rig({ readVersionsMax: 10, readsMax: 1, unsentMax: 5 });
    server.greet(1);
    server.ask(1, [full(1, 30)]);
    const stuck = server.answer(1, [1, 2, 3, 4, 5].map(whole));
    expect(stuck.map((output) => output.kind)).toEqual(["send"]);
    const freed = server.put({ kind: "sent", sessionId: 1, frames: 1, tookMs: 1 });
    expect(reads(freed)).toEqual([full(11, 20)]);
  });

  test("a slow send halves the chunk size down to the least", () => {
    const server = new Rig({ readVersionsMax: 10, readsMax: 1 });
    server.greet(1);
    const sizes: number[] = [];
    for (let turn = 0; turn < 5; turn += 1) {
      for (const output of server.ask(1, [full(1, 5)])) {
        if (output.kind === "read") sizes.push(output.request.chunkBytes);
      }
      server.answer(turn + 1, [whole(1)]);
      server.put({ kind: "sent", sessionId: 1, frames: 1, tookMs: 501 });
    }
    expect(sizes).toEqual([8192, 4096, 2048, 1024, 1024]);
  });

  test("ends with FIN once the client has, everything is read and all of it is taken", () => {
    const server = new Rig();
    server.greet(1);
    server.ask(1, [full(5, 5)]);
    expect(server.put({ kind: "finished", sessionId: 1 })).toEqual([]);
    expect(server.answer(1, [whole(5)])).toMatchObject([{ kind: "send" }]);
    expect(server.put({ kind: "sent", sessionId: 1, frames: 1, tookMs: 1 })).toEqual([
      { kind: "finish", sessionId: 1 },
    ]);
    expect(server.server.servingCount).toBe(0);
  });

  test("a client that takes nothing is given up", () => {
    const server = new Rig();
    server.greet(1);
    server.ask(1, [full(1, 5)]);
    server.answer(1, [whole(5)]);
    server.nowMs += SYNC_SERVER_DEFAULTS.sendTimeoutMs;
    expect(server.put({ kind: "tick" })).toEqual([{ kind: "abort", sessionId: 1 }]);
  });

  test("a client that asks without end is given up", () => {
    const server = new Rig({ needsMax: 3, readsMax: 0 });
    server.greet(1);
    expect(server.ask(1, [full(1, 1), full(2, 2), full(3, 3)])).toEqual([]);
    expect(server.ask(1, [full(4, 4)])).toEqual([{ kind: "abort", sessionId: 1 }]);
  });

  test("an answer of the store for a session that is gone is dropped", () => {
    const server = new Rig();
    server.greet(1);
    server.ask(1, [full(1, 5)]);
    server.put({ kind: "broken", sessionId: 1 });
    expect(server.answer(1, [whole(5)])).toEqual([]);
  });
});

const US = "11111111-0000-4000-8000-000000000000";
const CLIENT = "22222222-0000-4000-8000-000000000000";
const A = "aaaaaaaa-0000-4000-8000-000000000000";

class Rig {
  readonly server: SyncServer;
  nowMs = 1000;

  constructor(config: Partial<SyncServerConfig> = {}) {
    const books = new Bookkeeping();
    books.recordComplete(A, { start: 1, end: 1000 });
    this.server = new SyncServer({
      identity: { actorId: US, clusterId: 7 },
      config: { ...SYNC_SERVER_DEFAULTS, ...config },
      books,
      stamp: () => 42n,
    });
  }

  put(input: SyncServerInput): SyncServerOutput[] {
    this.server.handle(input, this.nowMs);
    return this.server.drain().filter((output) => output.kind !== "notify");
  }

  greet(sessionId: number): SyncServerOutput[] {
    this.put({ kind: "accepted", sessionId });
    this.put(start(sessionId, 7));
    return this.put({ kind: "message", sessionId, message: { kind: "clock", ts: 5n } });
  }

  ask(sessionId: number, needs: readonly SyncNeed[]): SyncServerOutput[] {
    const requests = [{ actorId: A, needs }];
    return this.put({ kind: "message", sessionId, message: { kind: "request", requests } });
  }

  answer(requestId: number, changesets: readonly Changeset[]): SyncServerOutput[] {
    return this.put({ kind: "versions", requestId, changesets });
  }
}

function start(sessionId: number, clusterId: number): SyncServerInput {
  const none = { traceparent: null, tracestate: null, supportsCompression: false };
  const message = { kind: "start", actorId: CLIENT, clusterId, ...none } as const;
  return { kind: "message", sessionId, message };
}

function full(first: number, last: number): SyncNeed {
  return { kind: "full", versions: { start: first, end: last } };
}

function reads(outputs: readonly SyncServerOutput[]): SyncNeed[] {
  return outputs.flatMap((output) => (output.kind === "read" ? [output.request.need] : []));
}

function whole(version: number): FullChangeset {
  const seqs = { start: 0, end: 0 };
  return { kind: "full", actorId: A, version, changes: [], seqs, lastSeq: 0, ts: 1n };
}
