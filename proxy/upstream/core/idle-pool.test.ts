import { expect, test } from "vitest";

import { IdlePool } from "./idle-pool.ts";

test("the connection used last is used next", () => {
  const pool = poolOf();
  const [first, second] = [connection("a"), connection("a")];
  pool.put(first, 0);
  pool.put(second, 1);
  expect(pool.take("a")).toBe(second);
  expect(pool.take("a")).toBe(first);
  expect(pool.take("a")).toBeNull();
  expect(pool.take("never seen")).toBeNull();
});

test("beyond the limit per upstream nothing is kept", () => {
  const pool = poolOf();
  expect([1, 2, 3].map((atMs) => pool.put(connection("a"), atMs))).toEqual([true, true, false]);
  expect(pool.put(connection("b"), 4)).toBe(true);
  expect(pool.count).toBe(3);
});

test("what is idle too long is taken out, oldest first, and no other", () => {
  const pool = poolOf();
  const [old, young] = [connection("a"), connection("a")];
  pool.put(old, 0);
  pool.put(young, 50);
  expect(pool.expire(99)).toEqual([]);
  expect(pool.expire(100)).toEqual([old]);
  expect(pool.count).toBe(1);
  expect(pool.take("a")).toBe(young);
});

test("a machine that is gone loses the connections of all its services", () => {
  const pool = poolOf();
  const [web, admin, other] = [connection("a", "m1"), connection("b", "m1"), connection("c", "m2")];
  for (const idle of [web, admin, other]) pool.put(idle, 0);
  expect(pool.dropMachine("m1")).toEqual([web, admin]);
  expect(pool.count).toBe(1);
});

test("a connection that closed by itself is taken out once", () => {
  const pool = poolOf();
  const idle = connection("a");
  pool.put(idle, 0);
  expect(pool.remove(idle)).toBe(true);
  expect(pool.remove(idle)).toBe(false);
  expect(pool.count).toBe(0);
});

interface Idle {
  readonly upstream: { readonly key: string; readonly machineId: string };
  idleSinceMs: number;
}

function poolOf(): IdlePool<Idle> {
  return new IdlePool<Idle>({ idleMs: 100, perUpstreamMax: 2 });
}

function connection(key: string, machineId = key): Idle {
  return { upstream: { key, machineId }, idleSinceMs: 0 };
}
