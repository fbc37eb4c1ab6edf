import fc from "fast-check";
import { expect, test } from "vitest";
import { SeaHasher, seaHashHex } from "./sea-hash.ts";

test("the check value of the reference comes out", () => {
  const text = new TextEncoder().encode("to be or not to be");
  expect(new SeaHasher().hash(text)).toBe(1_988_685_042_348_123_509n);
});

test.each([
  ["SELECT sandwich FROM sandwiches", "e20b84c0def5957e"],
  ["SELECT id, v FROM t WHERE id >= 3", "a962d152ba0b62dd"],
  ["SELECT v FROM t WHERE id = 3", "ad3d599a13e39340"],
  [
    "SELECT t.id, t.v, k.s FROM t LEFT JOIN kinds k ON k.b = t.id WHERE t.id < 3",
    "d5aff163456bcb05",
  ],
])("%s has the hash that a real node sent", (sql, hash) => {
  expect(seaHashHex(sql)).toBe(hash);
});

test("every length has a hash, also none", () => {
  const hashes = Array.from({ length: 40 }, (_, length) => seaHashHex("a".repeat(length)));
  expect(new Set(hashes).size).toBe(40);
  expect(hashes.every((hash) => /^[0-9a-f]{16}$/.test(hash))).toBe(true);
});

test("all bytes and lengths agree with the definition in wide integers, on a hasher that is reused", () => {
  const hasher = new SeaHasher();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      expect(hasher.hash(bytes)).toBe(byDefinition(bytes));
    }),
  );
});

test("an input larger than the memory it began with is hashed whole", () => {
  const hasher = new SeaHasher();
  const small = hasher.hash(Uint8Array.of(1, 2, 3));
  const bytes = Uint8Array.from({ length: 400_001 }, (_, at) => at);
  expect(hasher.hash(bytes)).toBe(byDefinition(bytes));
  expect(hasher.hash(Uint8Array.of(1, 2, 3))).toBe(small);
});

test("the halves of a result make up the whole", () => {
  const hasher = new SeaHasher();
  const whole = hasher.hash(Uint8Array.of(9));
  expect((BigInt(hasher.high >>> 0) << 32n) | BigInt(hasher.low >>> 0)).toBe(whole);
});

function byDefinition(bytes: Uint8Array): bigint {
  const lanes = [
    0x16f11fe89b0d677cn,
    0xb480a793d8e6c86cn,
    0x6fe2e5aaf078ebc9n,
    0x14f994a4c5259381n,
  ];
  for (let offset = 0; offset < bytes.length; offset += 8) {
    const piece = new DataView(new ArrayBuffer(8));
    bytes.subarray(offset, offset + 8).forEach((byte, at) => piece.setUint8(at, byte));
    lanes.push(diffuse((lanes.shift() ?? 0n) ^ piece.getBigUint64(0, true)));
  }
  return diffuse(lanes.reduce((sum, lane) => sum ^ lane, BigInt(bytes.length)));
}

function diffuse(value: bigint): bigint {
  const first = BigInt.asUintN(64, value * 0x6eed0e9da4d94a4fn);
  return BigInt.asUintN(64, (first ^ ((first >> 32n) >> (first >> 60n))) * 0x6eed0e9da4d94a4fn);
}
