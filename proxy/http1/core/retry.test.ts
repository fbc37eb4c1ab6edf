import { describe, expect, test } from "vitest";

import { decideRetry, type FailedAttempt } from "./retry.ts";

const FIRST: FailedAttempt = {
  stage: "sent",
  wasReused: true,
  isIdempotent: true,
  hasBody: false,
  bodySent: "none",
  attempts: 1,
  attemptsMax: 4,
  wasRepeated: false,
  wasMoved: false,
  isBudgetSpent: false,
  isOutOfTime: false,
};

test.each<[string, Partial<FailedAttempt>, string]>([
  ["a failed connect: next machine", { stage: "connect" }, "exclude"],
  [
    "also for a POST with a body",
    { stage: "connect", isIdempotent: false, hasBody: true },
    "exclude",
  ],
  ["not when time is up", { stage: "connect", isOutOfTime: true }, "out-of-time"],
  ["not when attempts are used up", { stage: "connect", attempts: 4 }, "attempts-used-up"],
  ["a stale pooled GET: again", {}, "again"],
  ["a GET that a machine took and broke off: next machine", { wasReused: false }, "exclude"],
  [
    "not when too much was repeated lately",
    { wasReused: false, isBudgetSpent: true },
    "budget-spent",
  ],
  ["the budget is not for stale ones", { isBudgetSpent: true }, "again"],
  ["nor for what was not sent", { stage: "connect", isBudgetSpent: true }, "exclude"],
  ["a second time: no", { wasReused: false, wasMoved: true }, "moved-once"],
  ["a POST that a machine took: no", { wasReused: false, isIdempotent: false }, "not-idempotent"],
  ["a PUT with its body gone: no", { wasReused: false, bodySent: "gone" }, "body-gone"],
  ["a second stale one: next machine", { wasRepeated: true }, "exclude"],
  ["a POST whose body was not sent: again", { isIdempotent: false, hasBody: true }, "again"],
  ["a POST without a body: no", { isIdempotent: false }, "not-idempotent"],
  [
    "a POST with its body sent: no",
    { isIdempotent: false, hasBody: true, bodySent: "kept" },
    "not-idempotent",
  ],
  ["a PUT whose body is kept: again", { hasBody: true, bodySent: "kept" }, "again"],
  ["a PUT whose body is gone: no", { hasBody: true, bodySent: "gone" }, "body-gone"],
  ["after a response byte: no", { stage: "answering" }, "response-started"],
])("%s", (_name, failed, expected) => {
  const decision = decideRetry({ ...FIRST, ...failed });
  expect(decision.kind === "skip" ? decision.reason : decision.kind).toBe(expected);
});

describe("over all attempts that can be", () => {
  test("whatever may have been acted on is repeated only when that is safe", () => {
    for (const failed of everyAttempt()) {
      const decision = decideRetry(failed);
      if (decision.kind === "skip") continue;
      const wasWholeRequestSent = failed.stage !== "connect" && !failed.hasBody;
      const wasBodySent = failed.stage !== "connect" && failed.bodySent !== "none";
      if (wasWholeRequestSent || wasBodySent) expect(failed.isIdempotent).toBe(true);
      expect(failed.stage).not.toBe("answering");
      expect(failed.attempts).toBeLessThan(failed.attemptsMax);
    }
  });
});

function* everyAttempt(): Generator<FailedAttempt> {
  const booleans = [false, true];
  for (const stage of ["connect", "sent", "answering"] as const) {
    for (const bodySent of ["none", "kept", "gone"] as const) {
      for (let bits = 0; bits < 64; bits += 1) {
        const [wasReused, isIdempotent, hasBody, wasRepeated, wasMoved, isLast] = [
          0, 1, 2, 3, 4, 5,
        ].map((bit) => booleans[(bits >> bit) & 1] as boolean) as [
          boolean,
          boolean,
          boolean,
          boolean,
          boolean,
          boolean,
        ];
        const attempts = isLast ? 4 : 1;
        yield {
          ...FIRST,
          stage,
          bodySent,
          wasReused,
          isIdempotent,
          hasBody,
          wasRepeated,
          wasMoved,
          attempts,
        };
      }
    }
  }
}
