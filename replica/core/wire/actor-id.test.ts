import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteReader } from "#base/byte-reader.ts";
import { NIL_ACTOR_ID, actorIdFromBytes, actorIdToBytes, readActorId } from "./actor-id.ts";
import { ACTOR_A, hexToBytes } from "../../../tests/wire-fixtures.ts";

test("an actor id is its 16 bytes in order", () => {
  const bytes = hexToBytes("00112233445566778899aabbccddeeff");
  expect(actorIdToBytes(ACTOR_A)).toEqual(bytes);
  expect(actorIdFromBytes(bytes)).toBe(ACTOR_A);
  expect(actorIdToBytes(ACTOR_A.toUpperCase())).toEqual(bytes);
});

test("text that is not a hyphenated UUID has no bytes", () => {
  const texts = ["", ACTOR_A.slice(1), ACTOR_A.replace("-", "0"), ACTOR_A.replace("f", "g")];
  for (const text of [...texts, ACTOR_A.replace("f", "\u0166")]) {
    expect(actorIdToBytes(text)).toBeNull();
  }
});

test("any actor id survives the way to bytes and back", () => {
  fc.assert(
    fc.property(fc.uuid(), fc.string(), (id, text) => {
      expect(actorIdFromBytes(actorIdToBytes(id)!)).toBe(id);
      actorIdToBytes(text);
    }),
  );
});

test("a reader that runs out gives the nil actor id", () => {
  const reader = new ByteReader(new Uint8Array(15));
  expect(readActorId(reader)).toBe(NIL_ACTOR_ID);
  expect(reader.failure).toBe("truncated");
});
