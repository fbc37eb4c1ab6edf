import fc from "fast-check";
import { expect, test } from "vitest";
import { bytesToHex, hexToBytes } from "../../../tests/wire-fixtures.ts";
import { UNBOUNDED, varintBytes, WireReader, WireWriter } from "./wire.ts";

test.each([
  ["25", 37],
  ["7bbd", 15_293],
  ["9d7f3e7d", 494_878_333],
  ["c01fffffffffffff", Number.MAX_SAFE_INTEGER],
])("%s is the integer %d, written back in as many bytes", (hex, value) => {
  expect(read(hex)).toEqual({ value, isFailed: false });
  expect(bytesToHex(written((writer) => writer.varint(value)))).toBe(hex);
});

test.each(["4025", "80000025", "c000000000000025"])("%s is 37 in a longer form", (hex) => {
  expect(read(hex)).toEqual({ value: 37, isFailed: false });
});

test.each(["c020000000000000", "c2197c5eff14e88c", "ffffffffffffffff"])(
  "%s is beyond exact numbers and read as no bound",
  (hex) => expect(read(hex)).toEqual({ value: UNBOUNDED, isFailed: false }),
);

test("no bound is written as the greatest integer there is", () => {
  expect(bytesToHex(written((writer) => writer.varint(UNBOUNDED)))).toBe("ffffffffffffffff");
});

test.each(["", "40", "800000", "c0000000000000"])("%s is cut short", (hex) => {
  expect(read(hex)).toEqual({ value: 0, isFailed: true });
});

test("every exact integer comes back as it was written, in the bytes foretold", () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      const bytes = written((writer) => writer.varint(value));
      expect(bytes.length).toBe(varintBytes(value));
      expect(read(bytesToHex(bytes))).toEqual({ value, isFailed: false });
    }),
  );
});

test("after a read past the end every read gives zero and moves nowhere", () => {
  const reader = new WireReader();
  reader.reset(hexToBytes("010203"), 0, 3);
  reader.skip(4);
  expect([reader.u8(), reader.u32(), reader.varint(), reader.remaining]).toEqual([0, 0, 0, 0]);
  expect(reader.at).toBe(0);
});

test("a reader keeps to its end though the bytes go on", () => {
  const reader = new WireReader();
  reader.reset(hexToBytes("0102030405"), 1, 3);
  expect([reader.u8(), reader.u8(), reader.u8()]).toEqual([2, 3, 0]);
  expect(reader.isFailed).toBe(true);
});

function read(hex: string): { value: number; isFailed: boolean } {
  const bytes = hexToBytes(hex);
  const reader = new WireReader();
  reader.reset(bytes, 0, bytes.length);
  const value = reader.varint();
  return { value, isFailed: reader.isFailed };
}

function written(write: (writer: WireWriter) => void): Uint8Array {
  const writer = new WireWriter();
  writer.reset(new Uint8Array(16), 0);
  write(writer);
  return writer.bytes.subarray(0, writer.at);
}
