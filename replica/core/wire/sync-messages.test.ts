import fc from "fast-check";
import { expect, test } from "vitest";
import type { SyncNeed } from "../../types.ts";
import {
  decodeSyncMessage,
  decodeSyncStart,
  encodeSyncChangeset,
  encodeSyncMessage,
  encodeSyncStart,
} from "./sync-messages.ts";
import type { SyncControl, SyncMessage, SyncStart, SyncState } from "./types.ts";
import { decodeAnswer, decodeChange, encodeChange } from "./changeset-codec.ts";
import {
  ACTOR_A,
  ACTOR_B,
  TS,
  actorIds,
  bytesToHex,
  changesetFromCapture,
  changesets,
  hexToBytes,
  hostileBytes,
  ranges,
  readVectors,
} from "../../../tests/wire-fixtures.ts";
import type { CapturedChangeset } from "../../../tests/wire-fixtures.ts";

test("every captured session decodes to what it says and encodes to the same bytes", () => {
  const sessions = readVectors<readonly Session[]>("sync.json");
  let frames = 0;
  for (const { fromClient, fromServer } of sessions) {
    for (const { hex, decoded } of [...fromClient, ...fromServer]) {
      expectCapture(hex, decoded);
      frames += 1;
    }
  }
  expect(frames).toBeGreaterThan(20);
});

test("the worked examples of sync frames have exactly these bytes", () => {
  const start: SyncStart = {
    actorId: ACTOR_A,
    traceparent: null,
    tracestate: null,
    clusterId: 0,
    supportsCompression: false,
  };
  expect(encodeSyncStart(start)).toEqual(hexToBytes(`00000000 00000000 ${A} 00 00 0000 00`));
  const state: SyncState = {
    actorId: ACTOR_A,
    heads: new Map([[ACTOR_A, 5]]),
    need: new Map([[ACTOR_B, [{ start: 2, end: 3 }]]]),
    partialNeed: new Map(),
    lastClearedTs: null,
  };
  const full: SyncNeed = { kind: "full", versions: { start: 2, end: 3 } };
  const partial: SyncNeed = { kind: "partial", version: 4, seqs: [{ start: 10, end: 20 }] };
  const examples: [SyncControl, string][] = [
    [{ kind: "clock", ts: TS }, "00000000 02000000 0000000080e14e68"],
    [
      { kind: "state", state },
      `00000000 00000000 ${A} 01000000 ${A} 0500000000000000 01000000 ${B} 01000000
       0200000000000000 0300000000000000 00000000 00`,
    ],
    [
      { kind: "request", requests: [{ actorId: ACTOR_B, needs: [full] }] },
      `00000000 04000000 01000000 ${B} 01000000 00000000 0200000000000000 0300000000000000`,
    ],
    [
      { kind: "request", requests: [{ actorId: ACTOR_B, needs: [partial] }] },
      `00000000 04000000 01000000 ${B} 01000000 01000000 0400000000000000 01000000
       0a00000000000000 1400000000000000`,
    ],
    [{ kind: "rejection", reason: "maxConcurrencyReached" }, "00000000 03000000 00000000"],
  ];
  for (const [message, hex] of examples) {
    expect(bytesToHex(encodeSyncMessage(message))).toBe(hex.replaceAll(/\s/g, ""));
    expect(decodeSyncMessage(hexToBytes(hex))).toEqual({ ok: true, value: message });
  }
});

test("a SyncStart that ends early has no trace, cluster 0 and no compression", () => {
  const expected = {
    actorId: ACTOR_A,
    traceparent: null,
    tracestate: null,
    clusterId: 0,
    supportsCompression: false,
  };
  for (const tail of ["", "00", "0000", "0000 0000"]) {
    const decoded = decodeSyncStart(hexToBytes(`00000000 00000000 ${A} ${tail}`));
    expect(decoded).toEqual({ ok: true, value: expected });
  }
});

test("a request's legacy Empty need is left out", () => {
  const hex = `00000000 04000000 01000000 ${B} 02000000 02000000 01 0000000080e14e68
    00000000 0200000000000000 0300000000000000`;
  const needs = [{ kind: "full", versions: { start: 2, end: 3 } }];
  expect(decodeSyncMessage(hexToBytes(hex))).toEqual({
    ok: true,
    value: { kind: "request", requests: [{ actorId: ACTOR_B, needs }] },
  });
});

test("a count that the frame cannot hold is refused before anything is allocated", () => {
  const hex = `00000000 04000000 ffffffff ${B}`;
  expect(decodeSyncMessage(hexToBytes(hex))).toEqual({ ok: false, error: "count-too-large" });
});

test("an answer in the legacy EmptySet form becomes one changeset per range", () => {
  const hex = `00000000 01000000 ${A} 02000000 02000000 0100000000000000 0200000000000000
    0500000000000000 0500000000000000 0000000080e14e68`;
  expect(decodeSyncMessage(hexToBytes(hex))).toMatchObject({
    value: {
      changesets: [
        { kind: "empty", versions: { start: 1, end: 2 } },
        { kind: "empty", versions: { start: 5, end: 5 } },
      ],
    },
  });
});

test.each<[string, (bytes: Uint8Array) => void]>([
  ["text-malformed", (bytes) => bytes.set([0xff], bytes.lastIndexOf(0x5a))],
  // The causal length, before the last seq, the seqs and the stamp.
  ["number-too-large", (bytes) => bytes.set([0xff], bytes.length - 33)],
])("an answer with a value that is %s says at least of which version it is", (reason, bend) => {
  const pk = hexToBytes("010901");
  const change = { table: "t", pk, cid: "v", val: "Z", colVersion: 1, seq: 2, cl: 1 };
  const version = { actorId: ACTOR_A, version: 9, seqs: { start: 2, end: 2 }, lastSeq: 4 };
  const answer = { ...version, kind: "full", changes: [change], ts: 16n } as const;
  const frame = encodeSyncChangeset(answer);
  bend(frame);
  const unreadable = { ok: true, value: { kind: "unreadable", ...version, reason } };
  expect(decodeSyncMessage(frame)).toEqual(unreadable);
  const bare = encodeChange(answer);
  bend(bare);
  expect(decodeAnswer(bare)).toEqual(unreadable);
  expect(decodeChange(bare)).toEqual({ ok: false, error: reason });
});

test("a compressed answer stays opaque until the driver has decompressed it", () => {
  expect(decodeSyncMessage(hexToBytes("00000000 05000000 02000000 28b5"))).toEqual({
    ok: true,
    value: { kind: "compressedChangeset", compressed: Uint8Array.of(0x28, 0xb5) },
  });
});

test("any sync message decodes to what was encoded", () => {
  fc.assert(
    fc.property(controls(), changesets, starts(), (control, changeset, start) => {
      expect(decodeSyncMessage(encodeSyncMessage(control))).toEqual({ ok: true, value: control });
      expect(decodeSyncMessage(encodeSyncChangeset(changeset))).toEqual({
        ok: true,
        value: { kind: "changesets", changesets: [changeset] },
      });
      expect(decodeSyncStart(encodeSyncStart(start))).toEqual({ ok: true, value: start });
    }),
  );
});

test("no bytes make the decoders of sync frames throw", () => {
  const sessions = readVectors<readonly Session[]>("sync.json");
  const valid = sessions.flatMap(({ fromClient, fromServer }) =>
    [...fromClient, ...fromServer].map(({ hex }) => hexToBytes(hex)),
  );
  fc.assert(
    fc.property(hostileBytes(valid), (bytes) => {
      decodeSyncMessage(bytes);
      decodeSyncStart(bytes);
    }),
    { numRuns: 2000 },
  );
});

// ---------------------------------------------------------------- helpers

const A = "00112233445566778899aabbccddeeff";
const B = "ffeeddccbbaa99887766554433221100";

interface Session {
  readonly fromClient: readonly Frame[];
  readonly fromServer: readonly Frame[];
}

interface Frame {
  readonly hex: string;
  readonly decoded: Captured;
}

type Pair = readonly [number, number];

interface Captured {
  readonly SyncStart?: { actorId: string; traceparent: null; tracestate: null };
  readonly clusterId?: number;
  readonly supportsCompression?: boolean;
  readonly Clock?: string;
  readonly Request?: readonly (readonly [string, readonly CapturedNeed[]])[];
  readonly State?: {
    readonly actorId: string;
    readonly heads: Readonly<Record<string, number>>;
    readonly need: Readonly<Record<string, readonly Pair[]>>;
    readonly partialNeed: Readonly<Record<string, Readonly<Record<string, readonly Pair[]>>>>;
    readonly lastClearedTs: null;
  };
  readonly Changeset?: { readonly actorId: string; readonly changeset: CapturedChangeset };
}

type CapturedNeed =
  | { readonly kind: "Full"; readonly versions: Pair }
  | { readonly kind: "Partial"; readonly version: number; readonly seqs: readonly Pair[] };

function expectCapture(hex: string, captured: Captured): void {
  const bytes = hexToBytes(hex);
  if (captured.SyncStart !== undefined) {
    const start: SyncStart = {
      ...captured.SyncStart,
      clusterId: captured.clusterId!,
      supportsCompression: captured.supportsCompression!,
    };
    expect(decodeSyncStart(bytes)).toEqual({ ok: true, value: start });
    expect(bytesToHex(encodeSyncStart(start))).toBe(hex);
    return;
  }
  const expected = messageFromCapture(captured);
  expect(decodeSyncMessage(bytes)).toEqual({ ok: true, value: expected });
  if (expected.kind === "changesets") {
    expect(bytesToHex(encodeSyncChangeset(expected.changesets[0]!))).toBe(hex);
  } else if (expected.kind !== "compressedChangeset" && expected.kind !== "unreadable") {
    expect(bytesToHex(encodeSyncMessage(expected))).toBe(hex);
  }
}

function messageFromCapture(captured: Captured): SyncMessage {
  const { Clock: clock, Request: requests, State: state, Changeset: change } = captured;
  if (clock !== undefined) return { kind: "clock", ts: BigInt(clock) };
  if (change !== undefined) {
    const changeset = changesetFromCapture(change.actorId, change.changeset);
    return { kind: "changesets", changesets: [changeset] };
  }
  if (requests !== undefined) {
    return {
      kind: "request",
      requests: requests.map(([actorId, needs]) => ({
        actorId,
        needs: needs.map((need) => needFromCapture(need)),
      })),
    };
  }
  const entries = Object.entries(state!.partialNeed).map(([actorId, partials]) => {
    const seqs = Object.entries(partials).map(
      ([version, pairs]) => [Number(version), pairs.map((pair) => rangeFromPair(pair))] as const,
    );
    return [actorId, new Map(seqs)] as const;
  });
  const need = Object.entries(state!.need).map(
    ([actorId, pairs]) => [actorId, pairs.map((pair) => rangeFromPair(pair))] as const,
  );
  return {
    kind: "state",
    state: {
      actorId: state!.actorId,
      heads: new Map(Object.entries(state!.heads)),
      need: new Map(need),
      partialNeed: new Map(entries),
      lastClearedTs: null,
    },
  };
}

function needFromCapture(need: CapturedNeed): SyncNeed {
  if (need.kind === "Full") return { kind: "full", versions: rangeFromPair(need.versions) };
  const seqs = need.seqs.map((pair) => rangeFromPair(pair));
  return { kind: "partial", version: need.version, seqs };
}

function rangeFromPair([start, end]: Pair): { start: number; end: number } {
  return { start, end };
}

function starts(): fc.Arbitrary<SyncStart> {
  return fc.record({
    actorId: actorIds,
    traceparent: fc.option(fc.string()),
    tracestate: fc.option(fc.string()),
    clusterId: fc.nat({ max: 65_535 }),
    supportsCompression: fc.boolean(),
  });
}

function controls(): fc.Arbitrary<SyncControl> {
  const stamps = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  const counters = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  const versions = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
  const mapOf = <Value>(values: fc.Arbitrary<Value>): fc.Arbitrary<Map<string, Value>> =>
    fc.array(fc.tuple(actorIds, values)).map((entries) => new Map(entries));
  const state: fc.Arbitrary<SyncState> = fc.record({
    actorId: actorIds,
    heads: mapOf(counters),
    need: mapOf(fc.array(ranges(1))),
    partialNeed: mapOf(
      fc
        .array(fc.tuple(versions, fc.array(ranges(0))))
        .map((entries) => new Map<number, { start: number; end: number }[]>(entries)),
    ),
    lastClearedTs: fc.option(stamps),
  });
  const needs: fc.Arbitrary<SyncNeed> = fc.oneof(
    fc.record({ kind: fc.constant("full" as const), versions: ranges(1) }),
    fc.record({
      kind: fc.constant("partial" as const),
      version: versions,
      seqs: fc.array(ranges(0)),
    }),
  );
  return fc.oneof(
    fc.record({ kind: fc.constant("state" as const), state }),
    fc.record({ kind: fc.constant("clock" as const), ts: stamps }),
    fc.record({
      kind: fc.constant("rejection" as const),
      reason: fc.constantFrom("maxConcurrencyReached" as const, "differentCluster" as const),
    }),
    fc.record({
      kind: fc.constant("request" as const),
      requests: fc.array(fc.record({ actorId: actorIds, needs: fc.array(needs) })),
    }),
  );
}
