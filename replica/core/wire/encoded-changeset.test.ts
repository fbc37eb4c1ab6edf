import fc from "fast-check";
import { expect, test } from "vitest";
import type { FullChangeset } from "../../types.ts";
import { ACTOR_A, changesets, hexToBytes, hostileBytes } from "../../../tests/wire-fixtures.ts";
import { decodeAnswer, encodeChange } from "./changeset-codec.ts";
import { changeCountOf, EncodedChangeset, keepAnswer } from "./encoded-changeset.ts";
import { decodeSyncMessage, encodeSyncChangeset } from "./sync-messages.ts";

test("any answer that is kept in its bytes says what it would say decoded, and is passed on as it came", () => {
  fc.assert(
    fc.property(changesets, (changeset) => {
      const frame = encodeSyncChangeset(changeset);
      const kept = decodeSyncMessage(frame, true);
      const message = kept.ok ? kept.value : null;
      const [first] = message?.kind === "changesets" ? message.changesets : [];
      if (changeset.kind === "empty") {
        expect(first).toEqual(changeset);
        return;
      }
      expect(first).toBeInstanceOf(EncodedChangeset);
      const encoded = first as EncodedChangeset;
      expect(changeCountOf(encoded)).toBe(changeset.changes.length);
      expect(fullOf(encoded)).toEqual(changeset);
      expect(encoded.problem).toBeNull();
      expect(encodeSyncChangeset(encoded)).toEqual(frame);
      expect(EncodedChangeset.of(changeset).bytes).toEqual(encodeChange(changeset));
    }),
  );
});

test("no bytes make it throw, and what it takes has as many changes as it says", () => {
  fc.assert(
    fc.property(hostileBytes([encodeChange(changesetWith("Z"))]), (bytes) => {
      const kept = keepAnswer(bytes);
      if (!kept.ok || kept.value.kind !== "changesets") return;
      for (const changeset of kept.value.changesets) {
        if (!(changeset instanceof EncodedChangeset)) continue;
        const { problem, changes } = changeset;
        expect(changes.length).toBe(problem === null ? changeset.changeCount : 0);
      }
    }),
  );
});

test.each<[string, (bytes: Uint8Array) => void]>([
  ["text-malformed", (bytes) => bytes.set([0xff], bytes.lastIndexOf(0x5a))],
  ["actor-differs", (bytes) => bytes.set([0x77], 20)],
  ["seq-outside-range", (bytes) => bytes.set([9], bytes.length - 48)],
])("one that is %s is known by its version, and has no changes", (problem, bend) => {
  const bytes = encodeChange(changesetWith("Z"));
  bend(bytes);
  const kept = keepAnswer(bytes);
  const message = kept.ok ? kept.value : null;
  const [changeset] = message?.kind === "changesets" ? message.changesets : [];
  expect(changeset).toMatchObject({ actorId: ACTOR_A, version: 9, changes: [], problem });
});

test("a legacy form is decoded at once", () => {
  // EmptySet of two ranges.
  const range = (start: number): string => `0${start}00000000000000 0${start}00000000000000`;
  const bytes = hexToBytes(
    `${ACTOR_A.replaceAll("-", "")} 02000000 02000000 ${range(3)} ${range(5)} 1000000000000000`,
  );
  expect(keepAnswer(bytes)).toEqual(decodeAnswer(bytes));
});

test("once released, it has nothing more", () => {
  const encoded = EncodedChangeset.of(changesetWith("Z"));
  encoded.release();
  expect([encoded.bytes.length, encoded.changes, encoded.changeCount]).toEqual([0, [], 1]);
});

function changesetWith(val: string): FullChangeset {
  const change = { table: "t", pk: hexToBytes("010901"), cid: "v", val, colVersion: 1 };
  const changes = [{ ...change, seq: 0, cl: 1 }];
  const seqs = { start: 0, end: 0 };
  return { kind: "full", actorId: ACTOR_A, version: 9, changes, seqs, lastSeq: 0, ts: 16n };
}

function fullOf(encoded: EncodedChangeset): FullChangeset {
  const { kind, actorId, version, changes, seqs, lastSeq, ts } = encoded;
  return { kind, actorId, version, changes, seqs, lastSeq, ts };
}
