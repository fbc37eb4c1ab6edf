import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteReader } from "./byte-reader.ts";
import { ByteWriter } from "./byte-writer.ts";

test("everything written is read back", () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 0xff }),
      fc.nat({ max: 0xffff }),
      fc.nat({ max: 0xffff_ffff }),
      fc.nat({ max: Number.MAX_SAFE_INTEGER }),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      fc.double({ noNaN: true }),
      fc.uint8Array(),
      fc.string({ unit: "grapheme", maxLength: 80 }),
      (u8, u16, u32, u53, i64, f64, bytes, text) => {
        const writer = new ByteWriter(0);
        writer.u8(u8);
        writer.u16le(u16);
        writer.u16be(u16);
        writer.u32le(u32);
        writer.u32be(u32);
        writer.u53le(u53);
        writer.i64le(i64);
        writer.u64le(BigInt.asUintN(64, i64));
        writer.f64le(f64);
        writer.f64be(f64);
        writer.raw(bytes);
        const textBytes = writer.text(text);
        const reader = new ByteReader(writer.finish());
        expect([reader.u8(), reader.u16le(), reader.u16be()]).toEqual([u8, u16, u16]);
        expect([reader.u32le(), reader.u32be(), reader.u53le()]).toEqual([u32, u32, u53]);
        expect([reader.i64le(), reader.u64le()]).toEqual([i64, BigInt.asUintN(64, i64)]);
        expect([reader.f64le(), reader.f64be()]).toEqual([f64, f64]);
        expect(reader.view(bytes.length)).toEqual(bytes);
        expect(reader.text(textBytes)).toBe(text);
        expect([reader.remaining, reader.failure]).toEqual([0, null]);
      },
    ),
  );
});

test("after the first failure every read gives nothing and the first reason stays", () => {
  const reader = new ByteReader(Uint8Array.of(1, 2, 3));
  expect(reader.u32le()).toBe(0);
  expect([reader.u8(), reader.text(1), reader.view(1).length]).toEqual([0, "", 0]);
  reader.fail("later");
  expect([reader.failure, reader.remaining, reader.offset]).toEqual(["truncated", 0, 0]);
});

test("a number above 2^53 - 1 is refused and one just below is read", () => {
  const writer = new ByteWriter();
  writer.u64le(2n ** 53n - 1n);
  writer.u64le(2n ** 53n);
  const reader = new ByteReader(writer.finish());
  expect(reader.u53le()).toBe(Number.MAX_SAFE_INTEGER);
  reader.u53le();
  expect(reader.failure).toBe("number-too-large");
});

test("a count is bounded by what the rest of the input can hold", () => {
  const writer = new ByteWriter();
  writer.u32le(3);
  for (const byte of [1, 2, 3, 4, 5, 6]) writer.u8(byte);
  expect(new ByteReader(writer.finish()).countU32le(2)).toBe(3);
  const reader = new ByteReader(writer.finish());
  expect(reader.countU32le(3)).toBe(0);
  expect(reader.failure).toBe("count-too-large");
});

test("malformed text is refused, a replacement character that was sent is not", () => {
  for (const length of [1, 40]) {
    const bad = new Uint8Array(length).fill(0xff);
    const reader = new ByteReader(bad);
    expect(reader.text(length)).toBe("");
    expect(reader.failure).toBe("text-malformed");
    const lenient = new ByteReader(Uint8Array.of(...bad, 7));
    expect(lenient.textOrFlaw(length)).toBe("");
    expect([lenient.failure, lenient.flaw, lenient.u8()]).toEqual([null, "text-malformed", 7]);
  }
  const text = "\ufeffa byte order mark and a \ufffd are text";
  const bytes = new TextEncoder().encode(text);
  expect(new ByteReader(bytes).text(bytes.length)).toBe(text);
});

test("a writer can be used again after a reset", () => {
  const writer = new ByteWriter();
  writer.text("first");
  const first = writer.finish();
  writer.reset();
  const countAt = writer.u32le(0);
  writer.patchU32le(countAt, 7);
  expect(writer.finish()).toEqual(Uint8Array.of(7, 0, 0, 0));
  expect(first).toEqual(new TextEncoder().encode("first"));
});
