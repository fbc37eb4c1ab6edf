import fc from "fast-check";
import { expect, test } from "vitest";
import { Hlc, ntp64SubsecondNanos, ntp64ToUnixMs, unixMsToNtp64 } from "./hlc.ts";

const NOW = 0x684e_e180_0000_0000n;

test("half a second after 1750000000 is 684ee18080000000", () => {
  expect(unixMsToNtp64(1_750_000_000_500)).toBe(0x684e_e180_8000_0000n);
  expect(ntp64ToUnixMs(0x684e_e180_8000_0000n)).toBe(1_750_000_000_500);
});

test("milliseconds survive the way to NTP64 and back within a microsecond", () => {
  fc.assert(
    fc.property(fc.nat(4_000_000_000_000), (unixMs) => {
      expect(Math.abs(ntp64ToUnixMs(unixMsToNtp64(unixMs)) - unixMs)).toBeLessThan(0.001);
    }),
  );
});

test("a stamp is the wall clock without its counter bits", () => {
  expect(new Hlc().stamp(NOW + 13n)).toBe(NOW);
});

test("stamps within one reading of the clock count up", () => {
  const clock = new Hlc();
  expect([clock.stamp(NOW), clock.stamp(NOW), clock.stamp(NOW + 1n)]).toEqual([
    NOW,
    NOW + 1n,
    NOW + 2n,
  ]);
  expect(clock.stamp(NOW + 16n)).toBe(NOW + 16n);
});

test("stamps only ever increase, whatever the wall clock does", () => {
  const readings = fc.array(fc.bigInt({ min: 0n, max: 2_000n }), { maxLength: 100 });
  fc.assert(
    fc.property(readings, (offsets) => {
      const clock = new Hlc();
      let before = 0n;
      for (const offset of offsets) {
        const stamp = clock.stamp(NOW + offset);
        expect(stamp > before).toBe(true);
        before = stamp;
      }
    }),
  );
});

test("a clock restored with its last stamp goes on above it", () => {
  expect(new Hlc(NOW + 500n).stamp(NOW)).toBe(NOW + 501n);
});

test("a merged stamp ahead of the wall clock is exceeded by the next stamp", () => {
  const clock = new Hlc();
  const remote = NOW + 1_000_000n;
  expect(clock.merge(remote, NOW)).toEqual({ ok: true, value: remote + 1n });
  expect(clock.stamp(NOW) > remote).toBe(true);
});

test("a merged stamp behind the wall clock moves the clock to the wall clock", () => {
  const clock = new Hlc();
  expect(clock.merge(NOW - 1_000n, NOW + 3n)).toEqual({ ok: true, value: NOW });
});

test("a merged stamp behind our own moves our own by one", () => {
  const clock = new Hlc(NOW + 100n);
  expect(clock.merge(NOW + 50n, NOW)).toEqual({ ok: true, value: NOW + 101n });
});

test("a stamp more than 300 ms ahead is refused without effect", () => {
  const clock = new Hlc(NOW);
  const limit = (300n << 32n) / 1_000n;
  const refused = clock.merge(NOW + limit + 1n, NOW);
  expect(refused.ok).toBe(false);
  if (!refused.ok) expect(Math.round(refused.error.aheadMs)).toBe(300);
  expect(clock.last).toBe(NOW);
  expect(clock.merge(NOW + limit, NOW).ok).toBe(true);
});

test("stamps that differ only in the counter share a nanosecond or are next to it", () => {
  expect(ntp64SubsecondNanos(NOW)).toBe(ntp64SubsecondNanos(NOW + 1n));
  expect(ntp64SubsecondNanos(0xffff_ffffn)).toBe(999_999_999n);
});
