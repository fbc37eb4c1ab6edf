import { expect, test } from "vitest";
import { SaltedHash } from "#base/salted-hash.ts";
import { SharedCounts } from "#base/shared-counts.ts";
import { CLIENT_CELLS, ClientCounts, clientOf } from "./client-counts.ts";

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
  const { clients } = countsOf(2);
  expect([1, 2, 3].map((host) => clients.take(`2001:db8::${host}`))).toEqual([true, true, false]);
  expect(clients.take("192.0.2.1")).toBe(true);
  clients.give("2001:db8::1");
  expect(clients.take("2001:db8::9")).toBe(true);
  expect(clients.take("2001:db8::9")).toBe(false);
});

test("nothing is remembered of clients that are gone, nor of refusals", () => {
  const { clients, cells } = countsOf(1);
  for (let index = 0; index < 100; index += 1) clients.take(`192.0.2.${index}`);
  expect(cells().filter((count) => count > 0).length).toBeGreaterThan(300);
  for (let index = 0; index < 100; index += 1) expect(clients.take(`192.0.2.${index}`)).toBe(false);
  for (let index = 0; index < 100; index += 1) clients.give(`192.0.2.${index}`);
  expect(cells().every((count) => count === 0)).toBe(true);
});

test("threads count the same clients; one that ends gives back what it held", () => {
  const { clients, counts, cells } = countsOf(3);
  const plan = counts.planOfThread();
  const other = clientsOf(plan, 3).clients;
  expect([clients, other, other, clients, other].map((one) => one.take("192.0.2.7"))).toEqual([
    true,
    true,
    true,
    false,
    false,
  ]);
  counts.forget(plan.share as SharedArrayBuffer);
  expect([1, 2, 3].map(() => clients.take("192.0.2.7"))).toEqual([true, true, false]);
  for (let index = 0; index < 3; index += 1) clients.give("192.0.2.7");
  expect(cells().every((count) => count === 0)).toBe(true);
});

/**
 * Goal: the bound that the file's header states, at a size where it can be seen. 20,000 clients have
 * their one connection each; the chance of a further one to be refused its first is
 * (20,000 / 65,536)^4 = 0.9 %.
 */
test("a client is refused wrongly only where all of its cells are shared", () => {
  const { clients } = countsOf(1);
  let refused = 0;
  for (let index = 0; index < 20_000; index += 1) {
    if (!clients.take(`10.0.${index >> 8}.${index & 255}`)) refused += 1;
  }
  expect(refused).toBeLessThan(200);
  let wrong = 0;
  for (let index = 0; index < 20_000; index += 1) {
    const client = `10.1.${index >> 8}.${index & 255}`;
    if (clients.take(client)) clients.give(client);
    else wrong += 1;
  }
  expect(wrong).toBeGreaterThan(0);
  expect(wrong / 20_000).toBeLessThan(0.009);
});

test("another salt spreads clients over other cells", () => {
  const cellsOf = (salt: readonly [number, number]): string => {
    const { clients, cells } = countsOf(5, salt);
    clients.take("192.0.2.1");
    return cells()
      .flatMap((count, at) => (count > 0 ? [at] : []))
      .join();
  };
  expect(cellsOf([1, 2])).toBe(cellsOf([1, 2]));
  expect(cellsOf([1, 2])).not.toBe(cellsOf([1, 3]));
});

type Salt = readonly [number, number];

function countsOf(max: number, salt: Salt = [3, 4]) {
  return clientsOf({ counts: SharedCounts.allocate(CLIENT_CELLS), share: null }, max, salt);
}

function clientsOf(
  plan: ConstructorParameters<typeof SharedCounts>[0],
  max: number,
  salt: Salt = [3, 4],
) {
  const counts = new SharedCounts(plan);
  const clients = new ClientCounts({ counts, at: 0, hash: new SaltedHash(salt), max });
  return { clients, counts, cells: () => [...new Int32Array(plan.counts)] };
}
