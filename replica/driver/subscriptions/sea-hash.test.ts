import { expect, test } from "vitest";
import { seaHash, seaHashHex } from "./sea-hash.ts";

test("the check value of the reference comes out", () => {
  expect(seaHash(new TextEncoder().encode("to be or not to be"))).toBe(1_988_685_042_348_123_509n);
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
