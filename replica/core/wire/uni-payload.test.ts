import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeChange, encodeChange } from "./changeset-codec.ts";
import { decodeUniPayload, encodeBroadcast, encodeUniPayload } from "./uni-payload.ts";
import type { ChangeId, PlumtreeMessage, UniPayload } from "./types.ts";
import {
  ACTOR_A,
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

test("every captured gossip frame decodes to what it says and encodes to the same bytes", () => {
  const vectors = readVectors<readonly GossipVector[]>("broadcast-gossip.json");
  expect(vectors.length).toBeGreaterThan(5);
  for (const { hex, decoded } of vectors) {
    const { actorId, changeset } = decoded.broadcast;
    const expected = changesetFromCapture(actorId, changeset);
    const payload = decodeOk(hexToBytes(hex));
    expect(payload).toEqual({ kind: "change", changesets: [expected], clusterId: 0 });
    expect(bytesToHex(encodeUniPayload(payload))).toBe(hex);
    expect(bytesToHex(encodeBroadcast(expected, 0))).toBe(hex);
  }
});

test("every captured Plumtree frame decodes to what it says and encodes to the same bytes", () => {
  const vectors = readVectors<readonly PlumtreeVector[]>("broadcast-plumtree.json");
  expect(vectors.length).toBeGreaterThan(10);
  for (const { hex, decoded } of vectors) {
    const payload = decodeOk(hexToBytes(hex));
    const message = plumtreeFromCapture(decoded.plumtree);
    expect(payload).toEqual({ kind: "plumtree", message, clusterId: decoded.clusterId });
    expect(bytesToHex(encodeUniPayload(payload))).toBe(hex);
  }
});

test("the worked example of a FullV2 broadcast has exactly these bytes", () => {
  expect(bytesToHex(encodeBroadcast(EXAMPLE, 0))).toBe(EXAMPLE_HEX);
  expect(decodeOk(hexToBytes(EXAMPLE_HEX))).toEqual({
    kind: "change",
    changesets: [EXAMPLE],
    clusterId: 0,
  });
});

test("a FullV2 changeset says its lastSeq before its seqs, and the payload ends with the cluster id", () => {
  const chunk = { ...EXAMPLE, changes: [], seqs: { start: 2, end: 3 }, lastSeq: 9 };
  const hex = bytesToHex(encodeBroadcast(chunk, 0x0102));
  const [lastSeq, start, end] = ["09", "02", "03"].map((byte) => byte.padEnd(16, "0"));
  expect(hex).toContain(`${lastSeq}${start}${end}`);
  expect(hex.slice(-4)).toBe("0201");
  expect(decodeOk(hexToBytes(hex))).toEqual({
    kind: "change",
    changesets: [chunk],
    clusterId: 0x0102,
  });
});

test("the sentinel row of a delete carries its causal length", () => {
  const change = { ...EXAMPLE.changes[0]!, cid: "-1", val: null, colVersion: 2, cl: 2 };
  const hex = bytesToHex(encodeBroadcast({ ...EXAMPLE, changes: [change] }, 0));
  const decoded = decodeOk(hexToBytes(hex));
  expect(decoded).toMatchObject({ changesets: [{ changes: [{ cid: "-1", val: null, cl: 2 }] }] });
});

test("an actor id has no length before it in a broadcast", () => {
  const hex = bytesToHex(encodeBroadcast(EXAMPLE, 0));
  expect(hex.slice(24, 24 + A.length)).toBe(A);
});

test("the worked example of an Empty broadcast writes the option byte of its stamp", () => {
  const empty = {
    kind: "empty",
    actorId: ACTOR_A,
    versions: { start: 7, end: 9 },
    ts: null,
  } as const;
  const hex = `00000000 00000000 00000000 ${A} 00000000 0700000000000000 0900000000000000 00 0000`;
  expect(bytesToHex(encodeBroadcast(empty, 0))).toBe(hex.replaceAll(" ", ""));
  expect(decodeOk(hexToBytes(hex))).toEqual({ kind: "change", changesets: [empty], clusterId: 0 });
});

test("the older Full form is read as the same changeset", () => {
  const full = `00000000 00000000 00000000 ${A} 01000000 0500000000000000 01000000
    0100000074 03000000010901 0100000076 03020000006869 0100000000000000 0500000000000000
    0000000000000000 ${A} 0100000000000000 0000000000000000 0000000000000000 0000000000000000
    0000000080e14e68 0000`;
  expect(decodeOk(hexToBytes(full))).toEqual({
    kind: "change",
    changesets: [EXAMPLE],
    clusterId: 0,
  });
});

test("the legacy EmptySet becomes one empty changeset per range", () => {
  const hex = `00000000 00000000 00000000 ${A} 02000000 02000000 0100000000000000 0200000000000000
    0500000000000000 0500000000000000 0000000080e14e68 0700`;
  const ranges = [
    { start: 1, end: 2 },
    { start: 5, end: 5 },
  ];
  expect(decodeOk(hexToBytes(hex))).toEqual({
    kind: "change",
    changesets: ranges.map((versions) => ({ kind: "empty", actorId: ACTOR_A, versions, ts: TS })),
    clusterId: 7,
  });
});

test("a compressed change stays opaque until the driver has decompressed it", () => {
  const payload: UniPayload = {
    kind: "compressedChange",
    compressed: Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd),
    clusterId: 3,
  };
  expect(decodeOk(encodeUniPayload(payload))).toEqual(payload);
});

test("the worked examples of IHave, Graft and Prune have exactly these bytes", () => {
  const id: ChangeId = {
    kind: "full",
    actorId: ACTOR_A,
    version: 5,
    seqs: { start: 0, end: 0 },
    lastSeq: 0,
  };
  const examples: [PlumtreeMessage, string][] = [
    [
      { kind: "iHave", sender: ACTOR_A, digests: [{ id, round: 2 }] },
      `01000000 ${A} 01000000 ${A} 00000000 0500000000000000 0000000000000000 0000000000000000
       0000000000000000 02000000 0000`,
    ],
    [
      { kind: "graft", sender: ACTOR_A, wantsPayloads: true, requests: [] },
      `02000000 ${A} 01 00000000 0000`,
    ],
    [{ kind: "prune", sender: ACTOR_A, triggeredBy: null }, `03000000 ${A} 00 0000`],
  ];
  for (const [message, tail] of examples) {
    const bytes = hexToBytes(`00000000 01000000 00000000 ${tail}`);
    const payload: UniPayload = { kind: "plumtree", message, clusterId: 0 };
    expect(bytesToHex(encodeUniPayload(payload))).toBe(bytesToHex(bytes));
    expect(decodeOk(bytes)).toEqual(payload);
  }
});

test("an absent cluster id is 0 and bytes after a payload are ignored", () => {
  const bytes = hexToBytes(EXAMPLE_HEX);
  expect(decodeOk(bytes.subarray(0, -2)).clusterId).toBe(0);
  expect(decodeOk(bytes.subarray(0, -1)).clusterId).toBe(0);
  expect(decodeOk(Uint8Array.of(...bytes, 1, 2, 3))).toEqual(decodeOk(bytes));
});

test.each([
  ["truncated", (bytes: Uint8Array) => bytes.subarray(0, 130)],
  ["unknown-tag", (bytes: Uint8Array) => bytes.with(28, 9)],
  ["actor-differs", (bytes: Uint8Array) => bytes.with(40, 1)],
  ["version-zero", (bytes: Uint8Array) => bytes.with(48, 0)],
  ["number-too-large", (bytes: Uint8Array) => bytes.with(55, 0xff)],
  ["count-too-large", (bytes: Uint8Array) => bytes.with(58, 0xff)],
  ["text-malformed", (bytes: Uint8Array) => bytes.with(90, 0xff)],
  ["range-backwards", (bytes: Uint8Array) => bytes.with(124, 1)],
  ["seq-outside-range", (bytes: Uint8Array) => bytes.with(100, 1)],
])("a change that is %s is refused with that reason", (reason, bend) => {
  expect(decodeUniPayload(bend(hexToBytes(EXAMPLE_HEX)))).toEqual({ ok: false, error: reason });
});

test("changes come out in seq order however the message grouped them", () => {
  const change = EXAMPLE.changes[0]!;
  const other = { ...change, pk: hexToBytes("010902") };
  const mixed = {
    ...EXAMPLE,
    changes: [change, { ...other, seq: 1 }, { ...change, cid: "w", seq: 2 }],
    seqs: { start: 0, end: 2 },
    lastSeq: 2,
  };
  expect(decodeOk(encodeBroadcast(mixed, 0))).toMatchObject({ changesets: [mixed] });
});

test("any changeset decodes to what was encoded", () => {
  fc.assert(
    fc.property(changesets, fc.nat({ max: 65_535 }), (changeset, clusterId) => {
      const payload = decodeOk(encodeBroadcast(changeset, clusterId));
      expect(payload).toEqual({ kind: "change", changesets: [changeset], clusterId });
      expect(decodeChange(encodeChange(changeset))).toEqual({ ok: true, value: [changeset] });
    }),
  );
});

test("any Plumtree message decodes to what was encoded", () => {
  fc.assert(
    fc.property(plumtreeMessages(), (message) => {
      const payload: UniPayload = { kind: "plumtree", message, clusterId: 1 };
      expect(decodeOk(encodeUniPayload(payload))).toEqual(payload);
    }),
  );
});

test("no bytes make the decoders of broadcasts throw", () => {
  const gossip = readVectors<readonly GossipVector[]>("broadcast-gossip.json");
  const plumtree = readVectors<readonly PlumtreeVector[]>("broadcast-plumtree.json");
  const valid = [...gossip, ...plumtree].map(({ hex }) => hexToBytes(hex));
  fc.assert(
    fc.property(hostileBytes(valid), (bytes) => {
      decodeUniPayload(bytes);
      decodeChange(bytes);
    }),
    { numRuns: 2000 },
  );
});

// ---------------------------------------------------------------- helpers

const A = "00112233445566778899aabbccddeeff";
const EXAMPLE_HEX = `00000000 00000000 00000000 ${A} 03000000 ${A} 0500000000000000
  01000000 01000000 74 01000000 03000000 010901 01000000 01000000 76 03 02000000 6869
  0100000000000000 0000000000000000 0100000000000000
  0000000000000000 0000000000000000 0000000000000000 0000000080e14e68 0000`.replaceAll(/\s/g, "");

const EXAMPLE = {
  kind: "full",
  actorId: ACTOR_A,
  version: 5,
  changes: [
    {
      table: "t",
      pk: Uint8Array.of(1, 9, 1),
      cid: "v",
      val: "hi",
      colVersion: 1,
      seq: 0,
      cl: 1,
    },
  ],
  seqs: { start: 0, end: 0 },
  lastSeq: 0,
  ts: TS,
} as const;

interface CapturedBroadcast {
  readonly actorId: string;
  readonly changeset: CapturedChangeset;
}

interface GossipVector {
  readonly hex: string;
  readonly decoded: { readonly broadcast: CapturedBroadcast; readonly clusterId: number };
}

interface CapturedId {
  readonly actorId: string;
  readonly version: number;
  readonly seqs: readonly [number, number];
  readonly lastSeq: number;
}

type CapturedPlumtree =
  | {
      readonly kind: "Gossip";
      readonly round: number;
      readonly sender: string;
      readonly id: CapturedId;
      readonly broadcast: CapturedBroadcast;
    }
  | {
      readonly kind: "IHave";
      readonly sender: string;
      readonly digests: readonly { readonly id: CapturedId; readonly round: number }[];
    };

interface PlumtreeVector {
  readonly hex: string;
  readonly decoded: { readonly plumtree: CapturedPlumtree; readonly clusterId: number };
}

function plumtreeFromCapture(captured: CapturedPlumtree): PlumtreeMessage {
  const { sender } = captured;
  if (captured.kind === "IHave") {
    const digests = captured.digests.map(({ id, round }) => ({ id: idFromCapture(id), round }));
    return { kind: "iHave", sender, digests };
  }
  const { actorId, changeset } = captured.broadcast;
  return {
    kind: "gossip",
    round: captured.round,
    sender,
    id: idFromCapture(captured.id),
    body: { kind: "change", changesets: [changesetFromCapture(actorId, changeset)] },
  };
}

function idFromCapture({ actorId, version, seqs, lastSeq }: CapturedId): ChangeId {
  return { kind: "full", actorId, version, seqs: { start: seqs[0], end: seqs[1] }, lastSeq };
}

function decodeOk(bytes: Uint8Array): UniPayload {
  const decoded = decodeUniPayload(bytes);
  if (!decoded.ok) throw new Error(decoded.error);
  return decoded.value;
}

function plumtreeMessages(): fc.Arbitrary<PlumtreeMessage> {
  const rounds = fc.nat({ max: 0xffff_ffff });
  const counters = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  const ids: fc.Arbitrary<ChangeId> = fc.oneof(
    fc.record({
      kind: fc.constant("full" as const),
      actorId: actorIds,
      version: counters,
      seqs: ranges(0),
      lastSeq: counters,
    }),
    fc.record({ kind: fc.constant("empty" as const), actorId: actorIds, versions: ranges(1) }),
  );
  const digests = fc.array(fc.record({ id: ids, round: rounds }));
  const bodies = fc.oneof(
    changesets.map((changeset) => ({ kind: "change" as const, changesets: [changeset] })),
    fc.record({ kind: fc.constant("compressedChange" as const), compressed: fc.uint8Array() }),
  );
  return fc.oneof(
    fc.record({
      kind: fc.constant("gossip" as const),
      round: rounds,
      sender: actorIds,
      id: ids,
      body: bodies,
    }),
    fc.record({ kind: fc.constant("iHave" as const), sender: actorIds, digests }),
    fc.record({
      kind: fc.constant("graft" as const),
      sender: actorIds,
      wantsPayloads: fc.boolean(),
      requests: digests,
    }),
    fc.record({
      kind: fc.constant("prune" as const),
      sender: actorIds,
      triggeredBy: fc.option(ids),
    }),
  );
}
