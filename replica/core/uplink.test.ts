/** What leaves a replica in virtual time, when somebody catches up and much is written at once. */
import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { ACTOR_A, ACTOR_B } from "../../tests/wire-fixtures.ts";
import type { ColumnChange, FullChangeset } from "../types.ts";
import { BRAKE_DEFAULTS } from "./brake/brake.ts";
import { BROADCAST_DEFAULTS } from "./broadcast/types.ts";
import { Hlc } from "./hlc.ts";
import { ReplicaCore } from "./replica-core.ts";
import type { ReplicaInput, ReplicaOutput } from "./replica-messages.ts";
import { lanPreset } from "./swim/config.ts";
import { packetBytes } from "./swim/codec.ts";
import type { SwimMessage } from "./swim/packet.ts";
import { SYNC_CLIENT_LAN, SYNC_SERVER_DEFAULTS } from "./sync/config.ts";
import { estimateChangesetBytes } from "./wire/chunker.ts";

test("sync keeps within its share, however much is asked", () => {
  const { syncBytes, answers } = run({ asks: 5_000, writes: 0 });
  // A second's burst at the start, and one answer of the store beyond.
  expect(syncBytes).toBeLessThan(SHARE * BUDGET * (SECONDS + 1) + 2 * ANSWER_BYTES_MAX);
  // And it is used.
  expect(syncBytes).toBeGreaterThan(SHARE * BUDGET * SECONDS);
  expect(answers).toBeGreaterThan(5);
});

test("broadcast, sync and SWIM together keep within the budget", () => {
  const both = run({ asks: 5_000, writes: 200 });
  expect(both.broadcastBytes).toBeGreaterThan(BUDGET);
  expect(both.syncBytes).toBeGreaterThan(0);
  expect(both.swimBytes).toBeGreaterThan(0);
  const all = both.broadcastBytes + both.syncBytes + both.swimBytes;
  const most = BUDGET * (SECONDS + 1) + 2 * ANSWER_BYTES_MAX + BROADCAST_DEFAULTS.flushBytes;
  expect(all).toBeLessThan(most);
});

test("what SWIM sends the others go without; it never waits itself", () => {
  const pings = 10;
  const all = run({ asks: 5_000, writes: 200, pings });
  // An answer to every ping, however much is owed.
  expect(all.acks).toBe((SECONDS * 1_000 * pings) / 10);
  expect(all.swimBytes).toBeGreaterThan(0.4 * BUDGET * SECONDS);
  expect(all.broadcastBytes + all.syncBytes).toBeLessThan(0.6 * BUDGET * (SECONDS + 2));
  const sum = all.broadcastBytes + all.syncBytes + all.swimBytes;
  expect(sum).toBeLessThan(
    BUDGET * (SECONDS + 1) + 2 * ANSWER_BYTES_MAX + BROADCAST_DEFAULTS.flushBytes,
  );
});

test("an urgent change leaves at once while both wait for the budget", () => {
  const { urgentMs, heldBack } = run({ asks: 5_000, writes: 200 });
  expect(heldBack).toBeGreaterThan(0);
  expect(urgentMs).toBe(0);
});

const BUDGET = 100_000;
const SHARE = 0.5;
const SECONDS = 20;
/** A hundred versions of a kilobyte, with what is around them. */
const ANSWER_BYTES_MAX = 120_000;

/**
 * A replica with one member, to which it sends. `asks` versions are asked by sync at the start, `writes`
 * are committed each second, `pings` come each 10 ms.
 */
function run(of: { asks: number; writes: number; pings?: number }) {
  const core = createCore();
  const bytes = { broadcastBytes: 0, syncBytes: 0, swimBytes: 0 };
  let [nowMs, answers, acks, urgentMs] = [0, 0, 0, Number.POSITIVE_INFINITY];
  const urgent = changesetOf(URGENT_VERSION, "state");
  const perform = (output: ReplicaOutput): void => {
    if (output.kind === "sendPacket") {
      bytes.swimBytes += packetBytes(output.packet);
      if (output.packet.message.kind === "ack") acks += 1;
    } else if (output.kind === "sendFrames") {
      bytes.broadcastBytes += output.frames.reduce((sum, frame) => sum + frame.length, 0);
      if (output.isUrgent) urgentMs = Math.min(urgentMs, nowMs - URGENT_MS);
      core.handle({ kind: "sent", id: output.id, ok: true }, nowMs);
    } else if (output.kind === "syncServer") {
      const { output: effect } = output;
      if (effect.kind === "read" && effect.request.need.kind === "full") {
        const { start, end } = effect.request.need.versions;
        const changesets: FullChangeset[] = [];
        for (let version = end; version >= start; version -= 1) {
          changesets.push({ ...changesetOf(version), actorId: ACTOR_B });
        }
        const input = { kind: "versions", requestId: effect.requestId, changesets } as const;
        core.handle({ kind: "syncServer", input }, nowMs);
      } else if (effect.kind === "send" && effect.message.kind === "changesets") {
        const { changesets } = effect.message;
        answers += 1;
        bytes.syncBytes += changesets.reduce((sum, one) => sum + estimateChangesetBytes(one), 0);
        const sent = { frames: changesets.length, tookMs: 1, sessionId: effect.sessionId };
        core.handle({ kind: "syncServer", input: { kind: "sent", ...sent } }, nowMs);
      }
    }
  };
  const settle = (): void => {
    for (let outputs = core.drain(); outputs.length > 0; outputs = core.drain()) {
      for (const output of outputs) perform(output);
    }
  };
  askFor(core, of.asks);
  settle();
  let version = 0;
  for (; nowMs < SECONDS * 1_000; nowMs += 10) {
    for (let left = of.writes / 100; left > 0; left -= 1) {
      version += 1;
      core.handle({ kind: "committed", commit: commitOf(changesetOf(version)) }, nowMs);
      settle();
    }
    for (let probe = 0; probe < (of.pings ?? 0); probe += 1) {
      core.handle(packetOf(core, { kind: "ping", probe }), nowMs);
      settle();
    }
    if (nowMs === URGENT_MS) core.handle({ kind: "committed", commit: commitOf(urgent) }, nowMs);
    settle();
    if (nowMs >= core.deadlineMs()) core.handle({ kind: "tick" }, nowMs);
    settle();
  }
  return { ...bytes, answers, acks, urgentMs, heldBack: core.uplink.stats.syncHeldBack };
}

const URGENT_MS = 10_000;
const URGENT_VERSION = 1_000_000;

function createCore(): ReplicaCore {
  const core = new ReplicaCore({
    self: { id: ACTOR_A, addr: "127.0.0.1:4001", ts: 16n, clusterId: 0, memberId: null },
    // Nobody answers probes here.
    swim: { ...lanPreset, probePeriodMs: 3_600_000 },
    broadcast: {
      ...BROADCAST_DEFAULTS,
      actorId: ACTOR_A,
      clusterId: 0,
      budgetBytesPerSecond: BUDGET,
    },
    brake: { ...BRAKE_DEFAULTS, isEnabled: false },
    syncClient: SYNC_CLIENT_LAN,
    syncServer: { ...SYNC_SERVER_DEFAULTS, uplinkShare: SHARE },
    books: new Map([[ACTOR_B, { head: 10_000, gaps: [], partials: new Map() }]]),
    prng: createPrng(1),
    hlc: new Hlc(),
    wallNtp64: (nowMs) => (BigInt(Math.floor(nowMs)) + 1n) << 32n,
  });
  core.handle(packetOf(core, { kind: "gossip" }), 0);
  return core;
}

function packetOf(core: ReplicaCore, message: SwimMessage): ReplicaInput {
  const member = { id: ACTOR_B, addr: "127.0.0.1:4002", ts: 1n << 32n, clusterId: 0 };
  const source = { ...member, memberId: null };
  const packet = { source, target: core.swim.self, sourceIncarnation: 0, message, members: [] };
  return { kind: "packet", packet, packetBytes: 100 };
}

function askFor(core: ReplicaCore, versions: number): void {
  const sessionId = 1;
  const tell = (input: Parameters<ReplicaCore["syncServer"]["handle"]>[0]): void =>
    core.handle({ kind: "syncServer", input }, 0);
  tell({ kind: "accepted", sessionId });
  const trace = { traceparent: null, tracestate: null };
  const start = { actorId: ACTOR_B, clusterId: 0, supportsCompression: false, ...trace };
  tell({ kind: "message", sessionId, message: { kind: "start", ...start } });
  tell({ kind: "message", sessionId, message: { kind: "clock", ts: 16n } });
  const need = { kind: "full", versions: { start: 1, end: versions } } as const;
  const requests = [{ actorId: ACTOR_B, needs: [need] }];
  tell({ kind: "message", sessionId, message: { kind: "request", requests } });
}

function commitOf(changeset: FullChangeset) {
  return { version: changeset.version, lastSeq: 0, ts: 16n, changesets: [changeset] };
}

function changesetOf(version: number, cid = "region"): FullChangeset {
  const pk = Uint8Array.of(1, 0x0b, 1, 0x61);
  const val = "x".repeat(1_000);
  const change: ColumnChange = {
    table: "machines",
    pk,
    cid,
    val,
    colVersion: version + 1,
    seq: 0,
    cl: 1,
  };
  const seqs = { start: 0, end: 0 };
  return { kind: "full", actorId: ACTOR_A, version, changes: [change], seqs, lastSeq: 0, ts: 16n };
}
