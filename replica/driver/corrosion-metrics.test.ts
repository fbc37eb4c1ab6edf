/**
 * Figures of queues, drops, the byte budget and trees: a core lives through what each counts, and
 * what a scrape would read from it is looked at. Figures of other kinds are scraped from processes
 * in `tests/corrosion-metrics.e2e.test.ts`.
 */
import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { ACTOR_A, ACTOR_B } from "../../tests/wire-fixtures.ts";
import type { BroadcastConfig } from "../core/broadcast/types.ts";
import { BRAKE_DEFAULTS } from "../core/brake/brake.ts";
import { BROADCAST_DEFAULTS } from "../core/broadcast/types.ts";
import { Hlc } from "../core/hlc.ts";
import { ReplicaCore } from "../core/replica-core.ts";
import type { ReplicaOutput } from "../core/replica-messages.ts";
import { lanPreset } from "../core/swim/config.ts";
import { SYNC_CLIENT_LAN, SYNC_SERVER_DEFAULTS } from "../core/sync/config.ts";
import type { ApplyOutcome, FullChangeset } from "../types.ts";
import { CORROSION_METRICS, type CorrosionFigures } from "./corrosion-metrics.ts";
import { coreCorrosionFigures, coreFigures } from "./replica-metrics.ts";

test("what waits for the store is in the queue, and is not once it went there", () => {
  const core = createCore();
  for (let version = 1; version <= 4; version += 1) receive(core, changesetOf(version, 3));
  // Two batches of one may be under way; the others wait.
  const names = ["changes_in_queue", "changesets_in_queue", "changes_processing_jobs"];
  const agent = names.map((name) => `corro_agent_${name}`);
  const started = ["corro_agent_changes_batch_spawned", "corro_agent_changes_processing_started"];
  const inFlight = appliesOf(core.drain());
  const under = inFlight.length;
  expect(under).toBeGreaterThan(0);
  expect(read(core, ...agent)).toEqual([3 * (4 - under), 4 - under, under]);
  expect(read(core, ...started)).toEqual([under, under]);
  expect(coreFigures(core)["inbox_changesets"]).toBe(4);
  finish(core, inFlight);
  expect(read(core, ...agent)).toEqual([0, 0, 0]);
  expect(read(core, ...started)[1]).toBe(4);
  expect(coreFigures(core)["inbox_changesets"]).toBe(0);
});

test("what no queue has room for is dropped, and counted", () => {
  const core = createCore();
  const extra = 7;
  const dropped = "corro_agent_changes_dropped";
  let version = 0;
  while (read(core, "corro_agent_changesets_in_queue")[0] !== 20_000) {
    for (let left = 20_000 - core.inboxStats.waiting; left > 0; left -= 1)
      receive(core, changesetOf(++version));
  }
  expect(read(core, dropped)).toEqual([0]);
  for (let count = 0; count < extra; count += 1) receive(core, changesetOf(++version));
  expect(read(core, dropped, "corro_agent_changesets_in_queue")).toEqual([extra, 20_000]);
});

test.each([
  ["gossip", "corro_broadcast_rate_limited", "corro_broadcast_dropped"],
  ["plumtree", "corro_plumtree_send_rate_limited", "corro_plumtree_send_dropped"],
] as const)(
  "%s: a byte budget that is used up holds back, and a full backlog drops",
  (method, limited, dropped) => {
    const core = createCore({
      method,
      budgetBytesPerSecond: 1_000,
      backlogEntriesMax: 5,
      laneBytesMax: 2_000,
    });
    introduce(core);
    const other = method === "gossip" ? "corro_plumtree_send" : "corro_broadcast";
    const others = [`${other}_rate_limited`, `${other}_dropped`];
    commit(core, 1);
    expect(read(core, limited, dropped)).toEqual([0, 0]);
    for (let version = 2; version <= 40; version += 1) commit(core, version);
    const [rateLimited = 0, given = 0] = read(core, limited, dropped);
    expect(rateLimited).toBeGreaterThan(0);
    expect(given).toBeGreaterThan(0);
    expect(coreFigures(core)).toMatchObject({
      broadcast_rate_limited_total: rateLimited,
      broadcast_dropped_total: given,
    });
    expect(read(core, ...others)).toEqual([0, 0]);
  },
);

test("a Prune and a Graft of a peer are counted, with what they change and what they ask in vain", () => {
  const core = createCore({ method: "plumtree" });
  introduce(core);
  const names = [
    'messages{"msg_type":"prune"}',
    'messages{"msg_type":"graft"}',
    "peer_to_lazy",
    "peer_to_eager",
    "payload_not_cached",
    "eager_peers",
    "lazy_peers",
  ].map((name) => `corro_plumtree_${name}`);
  expect(read(core, ...names)).toEqual([0, 0, 0, 0, 0, 1, 0]);
  tell(core, { kind: "prune", sender: ACTOR_B, triggeredBy: null });
  expect(read(core, ...names)).toEqual([1, 0, 1, 0, 0, 0, 1]);
  commit(core, 1);
  const { kind, seqs, lastSeq } = changesetOf(1);
  const idOf = (version: number) => ({ kind, actorId: ACTOR_A, version, seqs, lastSeq });
  const requests = [1, 99].map((version) => ({ id: idOf(version), round: 0 }));
  tell(core, { kind: "graft", sender: ACTOR_B, wantsPayloads: true, requests });
  expect(read(core, ...names)).toEqual([1, 1, 1, 1, 1, 1, 0]);
});

/** Values of metrics by name; of one with several series by `name{labels as JSON}` as well. */
function read(core: ReplicaCore, ...names: readonly string[]): number[] {
  const figures = coreCorrosionFigures(core) as CorrosionFigures;
  return names.map((wanted) => {
    for (const { name, series } of CORROSION_METRICS) {
      for (const [labels, value] of series) {
        if (wanted === name || wanted === `${name}${JSON.stringify(labels)}`) return value(figures);
      }
    }
    throw new Error(`there is no metric ${wanted}`);
  });
}

function createCore(broadcast: Partial<BroadcastConfig> = {}): ReplicaCore {
  return new ReplicaCore({
    self: { id: ACTOR_A, addr: "127.0.0.1:4001", ts: 16n, clusterId: 0, memberId: null },
    swim: lanPreset,
    broadcast: { ...BROADCAST_DEFAULTS, actorId: ACTOR_A, clusterId: 0, ...broadcast },
    brake: BRAKE_DEFAULTS,
    syncClient: SYNC_CLIENT_LAN,
    syncServer: SYNC_SERVER_DEFAULTS,
    books: new Map(),
    prng: createPrng(1),
    hlc: new Hlc(),
    wallNtp64: (nowMs) => (BigInt(Math.floor(nowMs)) + 1n) << 32n,
  });
}

/** B becomes a member. */
function introduce(core: ReplicaCore): void {
  const address = "127.0.0.1:4002";
  const source = { id: ACTOR_B, addr: address, ts: 1n << 32n, clusterId: 0, memberId: null };
  const ends = { source, target: core.swim.self, sourceIncarnation: 0 };
  const packet = { ...ends, message: { kind: "gossip" }, members: [] } as const;
  core.handle({ kind: "packet", packet, packetBytes: 100 }, 0);
  core.drain();
}

function receive(core: ReplicaCore, changeset: FullChangeset): void {
  core.handle({ kind: "broadcast", changeset, payload: null, clusterId: 0 }, 1);
}

type PlumtreeInput = Extract<Parameters<ReplicaCore["handle"]>[0], { kind: "plumtree" }>;

function tell(core: ReplicaCore, message: PlumtreeInput["message"]): void {
  core.handle({ kind: "plumtree", message, clusterId: 0 }, 2);
  core.drain();
}

/** An own transaction, 20 ms after the one before; what is to be sent is left without an answer. */
function commit(core: ReplicaCore, version: number): void {
  const changesets = [{ ...changesetOf(version), actorId: ACTOR_A }];
  const input = { version, lastSeq: 0, ts: 16n, changesets };
  core.handle({ kind: "committed", commit: input }, 20 * version);
  core.drain();
}

function appliesOf(outputs: readonly ReplicaOutput[]) {
  return outputs.filter((output) => output.kind === "apply");
}

/** The store applies these batches, and all that follow. */
function finish(core: ReplicaCore, batches: ReturnType<typeof appliesOf>): void {
  for (let next = batches; next.length > 0; next = appliesOf(core.drain())) {
    for (const { batchId, changesets } of next) {
      const outcomes = changesets.map((changeset): ApplyOutcome => {
        return { kind: "applied", changeset, rowsChanged: 1 };
      });
      core.handle({ kind: "applied", batchId, outcomes }, 1);
    }
  }
}

function changesetOf(version: number, columns = 1): FullChangeset {
  const pk = Uint8Array.of(1, 0x0b, 1, 0x61);
  const changes = Array.from({ length: columns }, (_, seq) => {
    const val = "x".repeat(200);
    return { table: "machines", pk, cid: `c${seq}`, val, colVersion: version, seq, cl: 1 };
  });
  const lastSeq = columns - 1;
  const seqs = { start: 0, end: lastSeq };
  return { kind: "full", actorId: ACTOR_B, version, changes, seqs, lastSeq, ts: 16n };
}
