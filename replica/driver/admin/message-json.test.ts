import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  ACTOR_A,
  changesets,
  hexToBytes,
  hostileBytes,
  readVectors,
  TS,
} from "../../../tests/wire-fixtures.ts";
import { encodeChange } from "../../core/wire/changeset-codec.ts";
import { encodeSyncMessage } from "../../core/wire/sync-messages.ts";
import { encodeUniPayload } from "../../core/wire/uni-payload.ts";
import { messageToJson, type MessageKind } from "./message-json.ts";

interface Vector {
  readonly hex: string;
  readonly decoded: unknown;
}

const SESSIONS =
  readVectors<readonly { fromClient: Vector[]; fromServer: Vector[] }[]>("sync.json");
const VECTORS: readonly [MessageKind, string, readonly Vector[]][] = [
  ["swim", "SWIM", readVectors<readonly Vector[]>("swim.json")],
  ["broadcast", "gossip", readVectors<readonly Vector[]>("broadcast-gossip.json")],
  ["broadcast", "Plumtree", readVectors<readonly Vector[]>("broadcast-plumtree.json")],
  [
    "sync",
    "sync",
    SESSIONS.flatMap(({ fromClient, fromServer }) => [...fromClient, ...fromServer]),
  ],
];

test.each(VECTORS)(
  "every captured message decodes to what it says (%s, %s)",
  (kind, _name, all) => {
    expect(all.length).toBeGreaterThan(5);
    for (const { hex, decoded } of all) {
      const { ok, value } = messageToJson(kind, hexToBytes(hex)) as { ok: boolean; value: unknown };
      expect(ok).toBe(true);
      expect(JSON.parse(JSON.stringify(value))).toEqual(decoded);
    }
  },
);

test("a compressed change is shown decompressed, with its size on the wire", () => {
  const empty = {
    kind: "empty",
    actorId: ACTOR_A,
    versions: { start: 1, end: 2 },
    ts: TS,
  } as const;
  const compressed = new Uint8Array(zstdCompressSync(encodeChange(empty)));
  const bytes = encodeUniPayload({ kind: "compressedChange", compressed, clusterId: 3 });
  expect(messageToJson("broadcast", bytes)).toMatchObject({
    value: {
      clusterId: 3,
      broadcast: {
        kind: "CompressedChange",
        compressedBytes: compressed.length,
        change: { changeset: { kind: "Empty", versions: [1, 2], ts: String(TS) } },
      },
    },
  });
});

test("needs and partial needs of a state are told as ranges", () => {
  const ranges = [{ start: 2, end: 3 }];
  const state = {
    actorId: ACTOR_A,
    heads: new Map([[ACTOR_A, 9]]),
    need: new Map([[ACTOR_A, ranges]]),
    partialNeed: new Map([[ACTOR_A, new Map([[7, ranges]])]]),
    lastClearedTs: TS,
  };
  expect(messageToJson("sync", encodeSyncMessage({ kind: "state", state }))).toMatchObject({
    value: {
      State: {
        need: { [ACTOR_A]: [[2, 3]] },
        partialNeed: { [ACTOR_A]: { 7: [[2, 3]] } },
        lastClearedTs: String(TS),
      },
    },
  });
});

test("no bytes make it throw, and what is shown is JSON", () => {
  const valid = VECTORS.flatMap(([, , all]) => all.slice(0, 4)).map(({ hex }) => hexToBytes(hex));
  const kinds = fc.constantFrom<MessageKind>("swim", "broadcast", "sync");
  fc.assert(
    fc.property(kinds, hostileBytes(valid), (kind, bytes) => {
      expect(typeof JSON.stringify(messageToJson(kind, bytes))).toBe("string");
    }),
  );
  fc.assert(
    fc.property(changesets, (changeset) => {
      const bytes = encodeUniPayload({ kind: "change", changesets: [changeset], clusterId: 0 });
      const shown = messageToJson("broadcast", bytes);
      expect(shown.ok).toBe(true);
      expect(typeof JSON.stringify(shown)).toBe("string");
    }),
  );
});
