import { expect, test } from "vitest";
import { ClientCounts, clientOf } from "./client-counts.ts";

test.each([
  ["192.0.2.1", "192.0.2.1"],
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:db8:1:2::6", "2001:db8:1:2::/64"],
  ["2001:db8::6", "2001:db8:0:0::/64"],
  ["2001:db8:1::2:3:4:5", "2001:db8:1:0::/64"],
  ["::1", "0:0:0:0::/64"],
  ["fe80::1", "fe80:0:0:0::/64"],
  ["", ""],
])("%s counts as %s", (address, client) => {
  expect(clientOf(address)).toBe(client);
});

test("a client gets its share and no more, until one is given back", () => {
  const counts = new ClientCounts(2);
  expect([1, 2, 3].map((host) => counts.take(`2001:db8::${host}`))).toEqual([true, true, false]);
  expect(counts.take("192.0.2.1")).toBe(true);
  counts.give("2001:db8::1");
  expect(counts.take("2001:db8::9")).toBe(true);
  expect(counts.take("2001:db8::9")).toBe(false);
});

test("nothing is remembered of clients that are gone", () => {
  const counts = new ClientCounts(0);
  for (let index = 0; index < 100; index += 1) counts.take(`192.0.2.${index}`);
  for (let index = 0; index < 100; index += 1) counts.give(`192.0.2.${index}`);
  expect(counts.clientCount).toBe(0);
});
