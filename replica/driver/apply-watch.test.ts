import { expect, onTestFinished, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import type { Changeset } from "../types.ts";
import { ApplyWatch } from "./apply-watch.ts";

const LIMIT_MS = 30_000;

test("a store that answers is never complained about, however much arrives", () => {
  const { watch, told } = createWatch();
  for (let nowMs = 0; nowMs < 10 * LIMIT_MS; nowMs += 1_000) {
    const [first, second] = [watch.begun([changeset(1)], nowMs), watch.begun([], nowMs)];
    watch.ended(first, 1, nowMs + 900);
    watch.check(nowMs + 900);
    watch.ended(second, 3, nowMs + 990);
  }
  watch.check(100 * LIMIT_MS);
  expect(told).toEqual([]);
});

test("a batch without an answer is told once, with its first change, and so is the end of it", () => {
  const { watch, told } = createWatch();
  const id = watch.begun([changeset(7)], 1_000);
  watch.begun([changeset(8)], 2_000);
  watch.check(1_000 + LIMIT_MS - 1);
  expect(told).toEqual([]);
  watch.check(1_000 + LIMIT_MS);
  watch.check(2_000 + LIMIT_MS);
  expect(told).toMatchObject([
    { level: "error", event: "replica-stuck", forMs: LIMIT_MS, batches: 2, ...ACTOR, version: 7 },
  ]);
  watch.ended(id, 1, 50_000);
  expect(told.slice(1)).toMatchObject([{ event: "replica-applies-again", afterMs: 49_000 }]);
  // The other batch still waits, from now on.
  watch.check(50_000 + LIMIT_MS - 1);
  expect(told).toHaveLength(2);
  watch.check(50_000 + LIMIT_MS);
  expect(told.at(-1)).toMatchObject({ event: "replica-stuck", batches: 1, version: 8 });
});

test("batches that come back undone again and again are told as well", () => {
  const { watch, told } = createWatch();
  for (let nowMs = 0; nowMs <= LIMIT_MS; nowMs += 5_000) {
    watch.ended(watch.begun([changeset(7)], nowMs), 0, nowMs + 100);
    watch.check(nowMs + 200);
  }
  expect(told).toMatchObject([{ event: "replica-stuck", batches: 0, version: 7 }]);
});

test("one that came back undone and does not come again is none", () => {
  const { watch, told } = createWatch();
  watch.ended(watch.begun([changeset(7)], 0), 0, 100);
  for (let nowMs = 0; nowMs < 10 * LIMIT_MS; nowMs += 1_000) {
    if (nowMs < LIMIT_MS) continue;
    watch.check(nowMs);
  }
  expect(told).toEqual([]);
});

const ACTOR = { actorId: "a1" };

function changeset(version: number): Changeset {
  return { kind: "empty", ...ACTOR, versions: { start: version, end: version } } as Changeset;
}

function createWatch() {
  const told: unknown[] = [];
  const log = createLogger({
    level: "info",
    nowMs: () => 0,
    write: (line) => void told.push(JSON.parse(line)),
  });
  const watch = new ApplyWatch({ log, limitMs: LIMIT_MS });
  onTestFinished(() => watch.close());
  return { watch, told };
}
