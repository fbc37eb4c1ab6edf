import fc from "fast-check";
import { expect, test } from "vitest";
import { formatAddress, hostForSocket, parseAddress } from "./address.ts";

test.each([
  ["192.0.2.1:8787", { host: "192.0.2.1", port: 8787 }],
  ["[2001:DB8:0:0::1]:8787", { host: "2001:db8::1", port: 8787 }],
  ["[::ffff:192.0.2.1]:1", { host: "192.0.2.1", port: 1 }],
  ["[::]:0", { host: "::", port: 0 }],
  ["192.0.2.1", null],
  ["localhost:80", null],
  ["192.0.2.256:80", null],
  ["192.0.2.1:65536", null],
  ["2001:db8::1:80", null],
  ["[192.0.2.1]:80", null],
  ["[fe80::1%eth0]:80", null],
  ["", null],
])("%s is read as %j", (text, expected) => {
  expect(parseAddress(text)).toEqual(expected);
});

test("what a dual-stack socket reports becomes plain text, and back", () => {
  expect(formatAddress("::ffff:192.0.2.1", 9)).toBe("192.0.2.1:9");
  expect(formatAddress("2001:db8::1", 9)).toBe("[2001:db8::1]:9");
  expect(hostForSocket("192.0.2.1", true)).toBe("::ffff:192.0.2.1");
  expect(hostForSocket("192.0.2.1", false)).toBe("192.0.2.1");
  expect(hostForSocket("::1", true)).toBe("::1");
});

test("canonical text survives parsing, and no text makes the parser throw", () => {
  const address = fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 65_535 }));
  fc.assert(
    fc.property(address, fc.string(), ([host, port], noise) => {
      expect(parseAddress(formatAddress(host, port))).toEqual({ host, port });
      parseAddress(noise);
      parseAddress(`[${noise}]:1`);
    }),
  );
});
