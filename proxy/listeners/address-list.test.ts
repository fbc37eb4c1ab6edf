import { expect, test } from "vitest";
import { addressTest, network } from "./address-list.ts";

test.each([
  ["192.0.2.0/24", "192.0.2.255", true],
  ["192.0.2.0/24", "192.0.3.0", false],
  ["192.0.2.7", "192.0.2.7", true],
  ["192.0.2.7", "192.0.2.8", false],
  ["192.0.2.0/24", "::ffff:192.0.2.1", true],
  ["2001:db8::/32", "2001:db8:1::5", true],
  ["2001:db8::/32", "2001:db9::5", false],
  ["0.0.0.0/0", "8.8.8.8", true],
  ["0.0.0.0/0", "2001:db8::1", false],
  ["192.0.2.0/24", "", false],
])("%s holds %s: %s", (text, address, expected) => {
  expect(addressTest([text])?.(address)).toBe(expected);
});

test("an empty list holds nobody, and costs no look-up", () => {
  expect(addressTest([])).toBeNull();
});

test.each([
  ["10.0.0.0/8", true],
  ["::1", true],
  ["10.0.0.0/33", false],
  ["::/129", false],
  ["10.0.0", false],
  ["proxy.example", false],
  ["", false],
])("%s is a network: %s", (text, expected) => {
  expect(network.safeParse(text).success).toBe(expected);
});
