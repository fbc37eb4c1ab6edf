import { expect, test } from "vitest";
import { SaltedHash } from "./salted-hash.ts";

/** From `vectors.h` of the reference implementation: key 00 01 .. 07, input 00 01 .. of a length. */
test.each([
  [0, "218d1f59b9b83cc8"],
  [2, "064f39ef7c50eb57"],
  [4, "d5e78a175be52ea1"],
  [6, "ce3e91358aa2bc25"],
  [8, "edfee820bce4858c"],
  [10, "95b0469f06a6f2ee"],
])("%i bytes hash as the reference implementation has it", (length, digest) => {
  const bytes = Buffer.from(Array.from({ length }, (_, index) => index));
  const hash = new SaltedHash([0x03020100, 0x07060504]);
  hash.take(bytes.toString("utf16le"));
  const got = Buffer.alloc(8);
  got.writeInt32LE(hash.low, 0);
  got.writeInt32LE(hash.high, 4);
  expect(got.toString("hex")).toBe(digest);
});
