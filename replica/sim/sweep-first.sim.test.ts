/** The first half of the sweep, in a file of its own: test files run side by side. */
import { expect, test } from "vitest";
import { SITUATIONS } from "./situations.ts";
import { sweepTwelve } from "./sweep-fixture.ts";

test("seeds 1 to 150 with 12 replicas: promises hold, healed replicas agree, all arises", () => {
  const marks = sweepTwelve({ first: 1, last: 150 });
  expect(SITUATIONS.filter((situation) => !marks.has(situation))).toEqual([]);
}, 900_000);
