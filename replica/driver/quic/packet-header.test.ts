import fc from "fast-check";
import { expect, test } from "vitest";
import { readPacketHeader } from "./packet-header.ts";
import { createResetSecret, createStatelessReset, createVersionNegotiation } from "./stateless.ts";

test("no bytes make the header reader, or the reply to what it read, throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      const packet = Buffer.from(bytes);
      const header = readPacketHeader(packet);
      if (header === null) return;
      expect(header.dcid.length + header.scid.length).toBeLessThan(packet.length);
      if (header.kind !== "short") createVersionNegotiation(header);
      else createStatelessReset(createResetSecret("key"), packet);
    }),
  );
});

test("long headers give version and both ids, short ones our id", () => {
  const long = Buffer.from("c00000000102aabb03ccddee00", "hex");
  expect(readPacketHeader(long)).toMatchObject({
    kind: "initial",
    version: 1,
    dcid: Buffer.from("aabb", "hex"),
    scid: Buffer.from("ccddee", "hex"),
  });
  const handshake = Buffer.from("e00000000102aabb00", "hex");
  expect(readPacketHeader(handshake)?.kind).toBe("long");
  const short = Buffer.from("400102030405060708ff", "hex");
  expect(readPacketHeader(short)).toMatchObject({
    kind: "short",
    dcid: Buffer.from("0102030405060708", "hex"),
  });
});

test("an id longer than version 1 allows makes the packet malformed", () => {
  const packet = Buffer.concat([Buffer.from("c00000000115", "hex"), Buffer.alloc(40)]);
  expect(readPacketHeader(packet)).toBeNull();
});
