import fc from "fast-check";
import { expect, test } from "vitest";
import { Congestion, Pacer } from "./congestion.ts";
import {
  APPLICATION_SPACE,
  HANDSHAKE_SPACE,
  INITIAL_SPACE,
  LossDetection,
  type TimingFacts,
} from "./loss-detection.ts";
import { RttEstimator } from "./rtt.ts";

test("the first round trip sets the estimates, later ones move them", () => {
  const rtt = new RttEstimator();
  expect([rtt.hasSample, rtt.smoothedMs, rtt.probeTimeoutMs(0)]).toEqual([false, 333, 999]);
  rtt.sample(100, 25);
  expect([rtt.minMs, rtt.smoothedMs, rtt.variationMs]).toEqual([100, 100, 50]);
  rtt.sample(140, 20);
  expect([rtt.minMs, rtt.smoothedMs, rtt.variationMs]).toEqual([100, 102.5, 42.5]);
  // The delay would make the path faster than it ever was.
  rtt.sample(110, 20);
  expect(rtt.smoothedMs).toBeCloseTo(103.4375);
});

test("an acknowledgement in place of one that was lost says nothing about the path", () => {
  const path = new Path({ maxAckDelayMs: 25 });
  path.send({ atMs: 0 });
  path.ack([0, 0], 40);
  const known = path.rtt.smoothedMs;
  path.send({ atMs: 100 });
  path.ack([0, 1], 9_100, { delayMs: 8_960 });
  expect(path.rtt.smoothedMs).toBe(known);
  // A loop that is late says so, too, and is to be reckoned with.
  path.send({ atMs: 9_200 });
  path.ack([0, 2], 9_300, { delayMs: 60 });
  expect(path.rtt.smoothedMs).toBe(0.875 * known + 0.125 * 75);
});

test("a packet is lost once three later ones have arrived", () => {
  const path = new Path();
  for (let at = 0; at < 5; at += 1) path.send({ atMs: at });
  path.ack([2, 3], 50);
  expect(path.loss.lost.map(({ number }) => number)).toEqual([0]);
  expect(path.loss.acked.map(({ number }) => number)).toEqual([2, 3]);
  path.ack([4, 4], 51);
  expect(path.loss.lost.map(({ number }) => number)).toEqual([1]);
  expect(path.congestion.bytesInFlight).toBe(0);
});

test("a packet overtaken by one is lost after nine eighths of the round trip", () => {
  const path = new Path();
  path.send({ atMs: 0 });
  path.send({ atMs: 0 });
  path.ack([1, 1], 80);
  expect(path.loss.lost).toEqual([]);
  expect(path.loss.deadlineMs).toBe(90);
  expect(path.loss.onTimeout(90)).toBe(-1);
  expect(path.loss.lost.map(({ number }) => number)).toEqual([0]);
});

test("silence is probed, ever more patiently, until a sign of life", () => {
  const path = new Path();
  path.send({ atMs: 0 });
  path.ack([0, 0], 100);
  path.send({ atMs: 200 });
  // 100 + 4 * 50 + the peer's delay of 25.
  expect(path.loss.deadlineMs).toBe(525);
  expect(path.loss.onTimeout(525)).toBe(APPLICATION_SPACE);
  expect(path.loss.deadlineMs).toBe(850);
  expect(path.loss.oldest(APPLICATION_SPACE, 2).map(({ number }) => number)).toEqual([1]);
  path.ack([1, 1], 900);
  expect([path.loss.probeTimeouts, path.loss.deadlineMs]).toEqual([0, Number.POSITIVE_INFINITY]);
});

test("before silence ends the connection, at least eight probes go out", () => {
  const path = new Path({ idleTimeoutMs: 8_000 });
  path.send({ atMs: 0 });
  path.ack([0, 0], 100);
  path.send({ atMs: 100 });
  const gapsMs: number[] = [];
  for (let nowMs = 100; gapsMs.length < 8;) {
    gapsMs.push(path.loss.deadlineMs - nowMs);
    nowMs = path.loss.deadlineMs;
    expect(path.loss.onTimeout(nowMs)).toBe(APPLICATION_SPACE);
    path.send({ atMs: nowMs });
  }
  expect(gapsMs).toEqual([325, 650, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]);
});

test("a client probes an empty handshake until the server is known to be free to answer", () => {
  const path = new Path({ isPeerValidated: false, isConfirmed: false });
  path.send({ atMs: 0, space: INITIAL_SPACE });
  path.ack([0, 0], 100, { space: INITIAL_SPACE });
  expect(path.loss.deadlineMs).toBe(400);
  expect(path.loss.onTimeout(400)).toBe(INITIAL_SPACE);
  path.facts.hasHandshakeKeys = true;
  expect(path.loss.onTimeout(1_000)).toBe(HANDSHAKE_SPACE);
  path.facts.isPeerValidated = true;
  path.loss.rearm(1_100);
  expect(path.loss.deadlineMs).toBe(Number.POSITIVE_INFINITY);
});

test("packets that cannot be acknowledged any more leave the window and the timer", () => {
  const path = new Path();
  path.send({ atMs: 0, space: INITIAL_SPACE });
  path.loss.discard(INITIAL_SPACE, 1);
  expect([path.congestion.bytesInFlight, path.loss.deadlineMs]).toEqual([
    0,
    Number.POSITIVE_INFINITY,
  ]);
});

test("an acknowledgement of a packet never sent is refused, and changes nothing", () => {
  const path = new Path();
  path.send({ atMs: 0 });
  expect(path.loss.onAck(APPLICATION_SPACE, { ranges: [0, 1], delayMs: 0, nowMs: 9 })).toBe(false);
  expect(path.congestion.bytesInFlight).toBe(1_000);
});

test("any order of acknowledgements settles each packet once and leaves the window exact", () => {
  const step = fc.record({ from: fc.nat({ max: 99 }), length: fc.nat({ max: 20 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const path = new Path();
      const settled = new Set<number>();
      for (let at = 0; at < 100; at += 1) path.send({ atMs: at });
      for (const [index, { from, length }] of steps.entries()) {
        path.ack([from, Math.min(99, from + length)], 200 + index);
        for (const { number } of [...path.loss.acked, ...path.loss.lost]) {
          expect(settled.has(number)).toBe(false);
          settled.add(number);
        }
        expect(path.congestion.bytesInFlight).toBe((100 - settled.size) * 1_000);
      }
    }),
  );
});

test("the window doubles in a round trip, is halved once per loss, then grows by a packet", () => {
  const window = new Congestion(1_200);
  const before = window.windowBytes;
  for (let at = 0; at < 10; at += 1) window.sent(1_200);
  for (let at = 0; at < 10; at += 1) window.acked({ bytes: 1_200, sentMs: 1 }, true);
  expect(window.windowBytes).toBe(before + 12_000);
  for (let at = 0; at < 2; at += 1) window.sent(1_200);
  for (let at = 0; at < 2; at += 1) window.lost({ bytes: 1_200, sentMs: 5, nowMs: 9 });
  expect(window.windowBytes).toBe((before + 12_000) / 2);
  const halved = window.windowBytes;
  for (let sent = 0; sent < halved; sent += 1_200) {
    window.sent(1_200);
    window.acked({ bytes: 1_200, sentMs: 10 }, true);
  }
  expect(window.windowBytes - halved).toBeGreaterThan(1_000);
  expect(window.windowBytes - halved).toBeLessThanOrEqual(1_320);
});

test("a window that was not used up does not grow", () => {
  const window = new Congestion(1_200);
  const before = window.windowBytes;
  window.sent(1_200);
  window.acked({ bytes: 1_200, sentMs: 1 }, false);
  expect(window.windowBytes).toBe(before);
});

test("a stretch without any arrival shrinks the window to its least", () => {
  const path = new Path();
  path.send({ atMs: 0 });
  path.ack([0, 0], 10);
  for (let at = 0; at < 8; at += 1) path.send({ atMs: 100 + at * 100 });
  path.ack([8, 8], 900);
  expect(path.loss.lost).toHaveLength(7);
  expect(path.congestion.windowBytes).toBe(2_400);
});

test("the pacer lets a burst out, then a window and a quarter per round trip", () => {
  const pacer = new Pacer(1_000);
  const path = { windowBytes: 100_000, smoothedMs: 100, nowMs: 1_000 };
  expect(pacer.readyMs(path)).toBe(1_000);
  for (let at = 0; at < 12; at += 1) pacer.sent(1_000);
  // 2,000 bytes over at 1,250 bytes per ms.
  expect(pacer.readyMs(path)).toBeCloseTo(1_001.6);
  expect(pacer.readyMs({ ...path, nowMs: 1_002 })).toBe(1_002);
});

/** One path with packets of 1,000 bytes. */
class Path {
  readonly rtt = new RttEstimator();
  readonly congestion = new Congestion(1_200);
  readonly facts: TimingFacts;
  readonly loss: LossDetection;

  constructor(facts: Partial<TimingFacts> = {}) {
    this.facts = {
      maxAckDelayMs: 25,
      isPeerValidated: true,
      isConfirmed: true,
      hasHandshakeKeys: false,
      idleTimeoutMs: Number.POSITIVE_INFINITY,
      ...facts,
    };
    this.loss = new LossDetection(this);
  }

  send({ atMs, space = APPLICATION_SPACE }: { atMs: number; space?: number }): void {
    this.loss.sent({
      number: this.loss.nextNumber(space),
      space,
      sentMs: atMs,
      bytes: 1_000,
      isAckEliciting: true,
      isInFlight: true,
      frames: [],
      wasLimited: true,
    });
  }

  ack(
    ranges: readonly number[],
    nowMs: number,
    { space = APPLICATION_SPACE, delayMs = 0 }: { space?: number; delayMs?: number } = {},
  ): void {
    expect(this.loss.onAck(space, { ranges, delayMs, nowMs })).toBe(true);
  }
}
