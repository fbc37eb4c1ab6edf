/** The second half of the sweep, in a file of its own: test files run side by side. */
import { expect, test } from "vitest";
import { SITUATIONS } from "./situations.ts";
import { sweepTwelve } from "./sweep-fixture.ts";

test("seeds 151 to 300 with 12 replicas: promises hold, healed replicas agree, all arises", () => {
  const marks = sweepTwelve({ first: 151, last: 300 });
  expect(SITUATIONS.filter((situation) => !marks.has(situation))).toEqual([]);
}, 900_000);
