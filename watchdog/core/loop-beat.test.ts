import fc from "fast-check";
import { expect, test } from "vitest";
import { LoopBeat } from "./loop-beat.ts";
import { BREADCRUMBS_KEPT, CELL, allocateLoops, currentBreadcrumb } from "./shared-layout.ts";
import { lastBreadcrumbs, loopRegion, readLoop } from "./shared-layout.ts";

test("a loop is watched from attach until it leaves", () => {
  const { buffer, region } = oneLoop();
  expect(readLoop(region).isWatched).toBe(false);
  const beat = LoopBeat.attach({ buffer, loop: 0 }, { threadId: 3, nativeThreadId: 4242 });
  expect(readLoop(region)).toMatchObject({ isWatched: true, phase: "boot", threadId: 3 });
  expect(readLoop(region).nativeThreadId).toBe(4242);
  beat.leave();
  expect(readLoop(region).isWatched).toBe(false);
});

test("a beat, a phase and progress change what the reader sees", () => {
  const { beat, region } = attachedLoop();
  const before = readLoop(region);
  beat.beat();
  expect(readLoop(region).beats).not.toBe(before.beats);
  const atBeat = readLoop(region).beats;
  beat.enter("apply");
  const entered = readLoop(region);
  expect(entered.phase).toBe("apply");
  expect(entered.beats).not.toBe(atBeat);
  expect(entered.progress).not.toBe(before.progress);
  beat.progress();
  expect(readLoop(region).progress).not.toBe(entered.progress);
  beat.turn(123.5);
  expect(readLoop(region)).toMatchObject({ idleMs: 123.5 });
  expect(readLoop(region).beats).not.toBe(entered.beats);
});

test("a thread that replaces another goes on counting its beats", () => {
  const { beat, buffer, region } = attachedLoop();
  for (let count = 0; count < 5; count++) beat.beat();
  const before = readLoop(region).beats;
  LoopBeat.attach({ buffer, loop: 0 }, THREAD);
  expect(readLoop(region).beats).toBe(before + 1);
});

test("the breadcrumb in progress is the newest until done", () => {
  const { beat, region } = attachedLoop();
  expect(currentBreadcrumb(region)).toBeNull();
  beat.breadcrumb(1, 7, "first");
  beat.breadcrumb(2, 8, "second");
  expect(textOf(currentBreadcrumb(region)?.bytes)).toBe("second");
  beat.done();
  expect(currentBreadcrumb(region)).toBeNull();
  expect(lastBreadcrumbs(region).map((record) => record.value)).toEqual([8, 7]);
});

test("the last sixteen breadcrumbs are kept, newest first", () => {
  const { beat, region } = attachedLoop();
  for (let value = 1; value <= 40; value++) beat.breadcrumb(1, value, `note ${value}`);
  const values = lastBreadcrumbs(region).map((record) => record.value);
  expect(values).toEqual(Array.from({ length: BREADCRUMBS_KEPT }, (_unused, at) => 40 - at));
});

test("an entry that is being written is skipped", () => {
  const { beat, region } = attachedLoop();
  beat.breadcrumb(1, 1, "whole");
  beat.breadcrumb(1, 2, "torn");
  const torn = region.ring[1];
  if (torn !== undefined) Atomics.add(torn.cells, 0, 1);
  expect(currentBreadcrumb(region)).toBeNull();
  expect(lastBreadcrumbs(region).map((record) => record.value)).toEqual([1]);
});

test("any note is read back, cut at 512 bytes and marked so", () => {
  const { beat, region } = attachedLoop();
  const notes = fc.oneof(fc.string({ maxLength: 700 }), fc.uint8Array({ maxLength: 700 }));
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 255 }), fc.double(), notes, (kind, value, note) => {
      beat.breadcrumb(kind, value, note);
      const record = currentBreadcrumb(region);
      const whole = typeof note === "string" ? new TextEncoder().encode(note) : note;
      expect(record?.kind).toBe(kind);
      expect(record?.value).toBe(value);
      expect(record?.isCut).toBe(whole.length > 512);
      const bytes = record?.bytes ?? new Uint8Array();
      // Text is cut between characters, so up to three bytes short of the limit.
      expect(bytes.length).toBeGreaterThanOrEqual(Math.min(whole.length, 509));
      expect(bytes).toEqual(whole.subarray(0, bytes.length));
    }),
  );
});

test("loops do not share memory", () => {
  const buffer = allocateLoops(2);
  const first = LoopBeat.attach({ buffer, loop: 0 }, THREAD);
  for (let value = 0; value < 20; value++) first.breadcrumb(255, -1, "x".repeat(512));
  const second = loopRegion(buffer, 1);
  expect(readLoop(second)).toMatchObject({ isWatched: false, beats: 0, progress: 0 });
  expect(lastBreadcrumbs(second)).toEqual([]);
});

test("no content of shared memory makes the reader throw", () => {
  const buffer = allocateLoops(1);
  const region = loopRegion(buffer, 0);
  const all = new Uint8Array(buffer);
  fc.assert(
    fc.property(fc.infiniteStream(fc.nat(255)), (bytes) => {
      for (let at = 0; at < 1400; at++) all[at] = bytes.next().value;
      region.cells[CELL.inProgress] = 1;
      readLoop(region);
      currentBreadcrumb(region);
      for (const record of lastBreadcrumbs(region)) expect(record.bytes.length).toBeLessThan(513);
    }),
    { numRuns: 30 },
  );
});

const THREAD = { threadId: 0, nativeThreadId: 0 };

function oneLoop() {
  const buffer = allocateLoops(1);
  return { buffer, region: loopRegion(buffer, 0) };
}

function attachedLoop() {
  const { buffer, region } = oneLoop();
  return { buffer, region, beat: LoopBeat.attach({ buffer, loop: 0 }, THREAD) };
}

function textOf(bytes: Uint8Array | undefined): string {
  return new TextDecoder().decode(bytes);
}
