import fc from "fast-check";
import { expect, test } from "vitest";
import type { SqlValue } from "../../types.ts";
import { packKey, unpackKey } from "./packed-key.ts";
import { bytesToHex, hexToBytes, hostileBytes, sqlValues } from "../../../tests/wire-fixtures.ts";

test.each<[SqlValue[], string]>([
  [[1n], "010901"],
  [[0n], "0101"],
  [[200n], "0109c8"],
  [[65_536n], "0119010000"],
  [[2n ** 32n], "01290100000000"],
  [[-1n], "0141ffffffffffffffff"],
  [[-(2n ** 63n)], "01418000000000000000"],
  [["a", "", 1.5, Uint8Array.of(0, 255)], "040b016103023ff80000000000000c0200ff"],
  [["m0000"], "010b056d30303030"],
])("a key is packed as cr-sqlite packs it (%#: %o)", (values, hex) => {
  expect(bytesToHex(packKey(values))).toBe(hex);
  expect(unpackKey(hexToBytes(hex))).toEqual({ ok: true, value: values });
});

test.each([
  ["key-empty", ""],
  ["key-without-columns", "00"],
  ["key-null", "0105"],
  ["key-null", "01027ff8000000000000"],
  ["key-integer-too-long", "0149000000000000000001"],
  ["key-trailing-bytes", "01090100"],
  ["key-not-canonical", "01110001"],
  ["key-not-canonical", "010b00"],
  ["key-not-canonical", "010a3ff8000000000000"],
  ["key-length-too-long", "012b0000000001"],
  ["text-malformed", "010b01ff"],
  ["truncated", "020901"],
  ["truncated", "010b0561"],
  ["unknown-tag", "010f"],
])("a key that would harm the store is refused as %s (%s)", (reason, hex) => {
  expect(unpackKey(hexToBytes(hex))).toEqual({ ok: false, error: reason });
});

test("any key unpacks to the values that were packed", () => {
  const values = fc.array(
    sqlValues.filter((value) => value !== null),
    { minLength: 1, maxLength: 8 },
  );
  fc.assert(
    fc.property(values, (key) => {
      expect(unpackKey(packKey(key))).toEqual({ ok: true, value: key });
    }),
  );
});

test("whatever unpacks packs again to the same bytes, and no bytes make it throw", () => {
  const valid = ["010901", "040b016103023ff80000000000000c0200ff"].map((hex) => hexToBytes(hex));
  fc.assert(
    fc.property(hostileBytes(valid), (bytes) => {
      const unpacked = unpackKey(bytes);
      if (unpacked.ok) expect(packKey(unpacked.value)).toEqual(bytes);
    }),
    { numRuns: 2000 },
  );
});
