import fc from "fast-check";
import { expect, test } from "vitest";
import { hexToBytes } from "../../../tests/wire-fixtures.ts";
import {
  expandPacketNumber,
  finishLongHeader,
  HANDSHAKE,
  INITIAL,
  packetNumberBytes,
  packetNumberBytesFor,
  PacketHeader,
  readTruncated,
  RETRY,
  SHORT,
  VERSION_NEGOTIATION,
  writeLongHeader,
  writeShortHeader,
} from "./packet.ts";
import { PlaintextProtection } from "./protection.ts";
import { WireWriter } from "./wire.ts";

test("the example of RFC 9000, appendix A.3, comes out", () => {
  expect(expandPacketNumber(0x9b32, 2, 0xa82f30ea)).toBe(0xa82f9b32);
});

test.each([
  [0xac5c02, 0xabe8b3, 2],
  [0xace8fe, 0xabe8b3, 3],
])("the number %d after %d takes %d bytes, as in appendix A.2", (number, acked, bytes) => {
  expect(packetNumberBytesFor(number, acked)).toBe(bytes);
});

test("a number sent with the bytes it needs is told by a peer that saw any of those in flight", () => {
  fc.assert(
    fc.property(fc.nat({ max: 2 ** 31 }), fc.nat({ max: 30_000 }), fc.nat(), (acked, ahead, at) => {
      const number = acked + 1 + ahead;
      // The peer has received at least what was acknowledged, at most what was sent before.
      const largest = acked + (at % (ahead + 1));
      const byteCount = packetNumberBytesFor(number, acked);
      const truncated = number % 256 ** byteCount;
      expect(expandPacketNumber(truncated, byteCount, largest)).toBe(number);
    }),
  );
});

test("headers come back as they were written, one behind the other", () => {
  const id = fc.uint8Array({ maxLength: 20 });
  const packet = fc.record({
    kind: fc.constantFrom(INITIAL, HANDSHAKE),
    dcid: id,
    scid: id,
    number: fc.nat(),
    numberBytes: fc.integer({ min: 1, max: 4 }),
    payload: fc.uint8Array({ minLength: 4, maxLength: 60 }),
  });
  const protection = new PlaintextProtection();
  fc.assert(
    fc.property(packet, packet, (first, second) => {
      const writer = new WireWriter();
      writer.reset(new Uint8Array(400), 0);
      for (const each of [first, second]) {
        const lengthAt = writeLongHeader(writer, each);
        writer.copy(each.payload);
        writer.at += protection.tagBytes;
        finishLongHeader(writer.bytes, lengthAt, writer.at);
      }
      const header = new PacketHeader();
      const datagram = writer.bytes.subarray(0, writer.at);
      for (const each of [first, second]) {
        expect(header.read(datagram, each === first ? 0 : header.end, 8)).toBe(true);
        const start = header.start;
        expect(header.kind).toBe(each.kind);
        expect(slice(datagram, header.dcidStart, header.dcidLength)).toEqual(each.dcid);
        expect(slice(datagram, header.scidStart, header.scidLength)).toEqual(each.scid);
        expect(packetNumberBytes(datagram[start]!)).toBe(each.numberBytes);
        expect(readTruncated(datagram, header.numberStart, each.numberBytes)).toBe(
          each.number % 256 ** each.numberBytes,
        );
        const payloadStart = header.numberStart + each.numberBytes;
        expect(slice(datagram, payloadStart, each.payload.length)).toEqual(each.payload);
        expect(header.end).toBe(payloadStart + each.payload.length + protection.tagBytes);
      }
      expect(header.end).toBe(datagram.length);
    }),
  );
});

test("a short header is read with the length of id that its owner gave out", () => {
  const writer = new WireWriter();
  writer.reset(new Uint8Array(40), 0);
  const dcid = hexToBytes("a1a2a3a4a5a6a7a8");
  writeShortHeader(writer, dcid, { number: 0x123456, numberBytes: 2 });
  const header = new PacketHeader();
  expect(header.read(writer.bytes, 0, 8)).toBe(true);
  expect(header).toMatchObject({ kind: SHORT, dcidStart: 1, dcidLength: 8, numberStart: 9 });
  expect(readTruncated(writer.bytes, 9, 2)).toBe(0x3456);
  expect(header.read(hexToBytes("40a1a2"), 0, 8)).toBe(false);
});

test("other versions, version negotiation and retry are told apart, never read further", () => {
  const header = new PacketHeader();
  expect(header.read(hexToBytes("c0 00000000 01aa 01bb 00000001"), 0, 8)).toBe(true);
  expect(header.kind).toBe(VERSION_NEGOTIATION);
  expect(header.read(hexToBytes("c0 ff00001d 01aa 01bb 00 4010"), 0, 8)).toBe(false);
  expect(header.read(hexToBytes("f0 00000001 01aa 01bb 0102030405"), 0, 8)).toBe(true);
  expect(header.kind).toBe(RETRY);
  expect(header.read(hexToBytes(`c0 00000001 15 ${"aa".repeat(21)} 00 00 05`), 0, 8)).toBe(false);
});

test("a length that reaches beyond the datagram is refused", () => {
  const header = new PacketHeader();
  const complete = hexToBytes("e0 00000001 01aa 01bb 05 0011223344");
  expect(header.read(complete, 0, 8)).toBe(true);
  expect(header.end).toBe(complete.length);
  expect(header.read(complete.subarray(0, complete.length - 1), 0, 8)).toBe(false);
});

test("no bytes make the header's positions leave the datagram", () => {
  const header = new PacketHeader();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.boolean(), (bytes, isVersion1) => {
      if (isVersion1 && bytes.length > 4) bytes.set([0, 0, 0, 1], 1);
      if (!header.read(bytes, 0, 8)) return;
      for (const end of [
        header.dcidStart + header.dcidLength,
        header.scidStart + header.scidLength,
        header.tokenStart + header.tokenLength,
        header.numberStart,
        header.end,
      ]) {
        expect(end).toBeLessThanOrEqual(bytes.length);
      }
    }),
  );
});

test("the worked tag of the protocol reference comes out, and any changed bit is found", () => {
  const protection = new PlaintextProtection();
  const packet = hexToBytes("40a1a2a3a4a5a6a7a800 01000000 67fdd32aead15954");
  const place = { start: 0, numberStart: 9, numberBytes: 1, end: packet.length };
  expect(protection.open(packet, place)).toBe(true);
  for (let bit = 0; bit < packet.length * 8; bit += 1) {
    packet[bit >> 3]! ^= 1 << (bit & 7);
    expect(protection.open(packet, place)).toBe(false);
    packet[bit >> 3]! ^= 1 << (bit & 7);
  }
  packet.fill(0, packet.length - 8);
  protection.seal(packet, place);
  expect(packet).toEqual(hexToBytes("40a1a2a3a4a5a6a7a800 01000000 67fdd32aead15954"));
});

function slice(bytes: Uint8Array, at: number, length: number): Uint8Array {
  return bytes.slice(at, at + length);
}
