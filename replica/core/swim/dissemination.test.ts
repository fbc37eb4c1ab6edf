import { expect, test } from "vitest";
import type { Actor } from "./actor.ts";
import { memberBytes } from "./codec.ts";
import { DisseminationQueue } from "./dissemination.ts";
import type { MemberUpdate } from "./packet.ts";

const SMALL = memberBytes(update(1));

test("an update goes out as often as it was given transmissions, and no more", () => {
  const queue = new DisseminationQueue();
  queue.add(update(1), 3);
  const sent = Array.from({ length: 5 }, () => queue.take(1_000).length);
  expect(sent).toEqual([1, 1, 1, 0, 0]);
  expect(queue.size).toBe(0);
});

test("a newer update about a replica replaces the older one and its count", () => {
  const queue = new DisseminationQueue();
  queue.add(update(1), 1);
  queue.add({ ...update(1), state: "down" }, 2);
  expect(queue.size).toBe(1);
  expect(queue.take(1_000)).toEqual([{ ...update(1), state: "down" }]);
  expect(queue.take(1_000)).toHaveLength(1);
});

test("the updates with most transmissions left go first, larger before smaller", () => {
  const queue = new DisseminationQueue();
  queue.add(update(1), 2);
  queue.add(update(2), 5);
  queue.add(update(3, "[2001:db8::3]:8787"), 5);
  expect(queue.take(1_000).map(({ actor }) => actor.addr)).toEqual([
    "[2001:db8::3]:8787",
    "10.0.0.2:8787",
    "10.0.0.1:8787",
  ]);
});

test("what does not fit stays with its count, and a smaller one takes the room", () => {
  const queue = new DisseminationQueue();
  queue.add(update(1, "[2001:db8::1]:8787"), 2);
  queue.add(update(2), 1);
  expect(queue.take(SMALL)).toEqual([update(2)]);
  expect(queue.take(SMALL)).toEqual([]);
  expect(queue.take(1_000)).toHaveLength(1);
  expect(queue.take(1_000)).toHaveLength(1);
  expect(queue.size).toBe(0);
});

test("an update left out keeps its count", () => {
  const queue = new DisseminationQueue();
  queue.add(update(1), 1);
  expect(queue.take(1_000, update(1).actor.id)).toEqual([]);
  expect(queue.take(1_000)).toHaveLength(1);
});

function update(index: number, addr = `10.0.0.${index}:8787`): MemberUpdate {
  const id = `${String(index).padStart(8, "0")}-0000-4000-8000-000000000000`;
  const actor: Actor = { id, addr, ts: 1n << 40n, clusterId: 0, memberId: null };
  return { actor, incarnation: 0, state: "alive" };
}
