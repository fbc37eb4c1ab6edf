import fc from "fast-check";
import { expect, test } from "vitest";
import { canonicalAddress, formatAddress, parseAddress } from "./address.ts";

test.each([
  ["127.0.0.1:4001", "127.0.0.1:4001"],
  ["127.0.0.1:04001", "127.0.0.1:4001"],
  ["[::1]:4001", "[::1]:4001"],
  ["[::]:0", "[::]:0"],
  ["[0:0:0:0:0:0:0:1]:1", "[::1]:1"],
  ["[2001:DB8::0001]:8787", "[2001:db8::1]:8787"],
  ["[2001:db8:0:0:1:0:0:1]:1", "[2001:db8::1:0:0:1]:1"],
  ["[2001:db8:0:1:1:1:1:1]:1", "[2001:db8:0:1:1:1:1:1]:1"],
  ["[2001:0:0:1:0:0:0:1]:1", "[2001:0:0:1::1]:1"],
  ["[1::]:1", "[1::]:1"],
  ["[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.1]:1"],
  ["[::ffff:c000:201]:1", "[::ffff:192.0.2.1]:1"],
  ["[64:ff9b::192.0.2.1]:1", "[64:ff9b::c000:201]:1"],
])("the canonical form of %s is %s", (text, canonical) => {
  expect(canonicalAddress(text)).toEqual({ ok: true, value: canonical });
});

test.each([
  "",
  "127.0.0.1",
  "127.0.0.1:65536",
  "127.0.0.256:1",
  "127.0.0.01:1",
  "127.0.1:1",
  "::1:4001",
  "[::1]",
  "[1::2::3]:1",
  "[1:2:3:4:5:6:7]:1",
  "[1:2:3:4:5:6:7:8:9]:1",
  "[1:2:3:4::5:6:7:8]:1",
  "[:1:2:3:4:5:6:7]:1",
  "[12345::]:1",
  "[1.2.3.4::]:1",
  "[fe80::1%eth0]:1",
  "localhost:4001",
  "[::1]:1\n",
])("%j is no address", (text) => {
  expect(parseAddress(text)).toEqual({ ok: false, error: { kind: "badAddress", text } });
});

test("any octets and port survive the way to text and back", () => {
  const octets = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.array(fc.constantFrom(0, 0, 0, 1, 255), { minLength: 16, maxLength: 16 }),
  );
  fc.assert(
    fc.property(octets, fc.nat(65_535), (bytes, port) => {
      const address = { octets: Uint8Array.from(bytes), port };
      expect(parseAddress(formatAddress(address))).toEqual({ ok: true, value: address });
    }),
    { numRuns: 1_000 },
  );
});

test("no text makes the parser throw", () => {
  const piece = fc.constantFrom("[", "]", ":", "::", ".", "0", "ffff", "1.2.3.4", "65535", "x");
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
      parseAddress(pieces.join(""));
    }),
  );
});
