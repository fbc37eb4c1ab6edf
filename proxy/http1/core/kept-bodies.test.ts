import { expect, test } from "vitest";
import { SharedLimit } from "#base/shared-counts.ts";
import { KeptBodies } from "./kept-bodies.ts";

test("so many bodies are kept and no more, until one is given back", () => {
  const places = SharedLimit.own(2);
  const [one, other] = [1, 2].map(() => new KeptBodies({ bytesMax: 8, places }));
  const block = one?.take(8);
  expect(block).toHaveLength(8);
  expect(other?.take(1)).toHaveLength(8);
  expect(one?.take(1)).toBeNull();
  one?.give(block as Uint8Array);
  expect(one?.take(1)).toBe(block);
});

test("a body that is too long takes no place", () => {
  const bodies = new KeptBodies({ bytesMax: 8, places: SharedLimit.own(1) });
  expect(bodies.take(9)).toBeNull();
  expect(bodies.take(8)).not.toBeNull();
  const none = new KeptBodies({ bytesMax: 0, places: SharedLimit.own(1) });
  expect(none.take(1)).toBeNull();
});
