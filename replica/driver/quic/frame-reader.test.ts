import fc from "fast-check";
import { expect, test } from "vitest";
import { FrameReader } from "./frame-reader.ts";

const LIMITS = { frameBytesMax: 1_000, streamBytesMax: 1_500 };

test("frames come out whole however the bytes are cut", () => {
  const frame = fc.uint8Array({ maxLength: 60 });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 8 }), fc.integer({ min: 1, max: 40 }), (sent, cut) => {
      const bytes = Buffer.concat(
        sent.flatMap((payload) => [lengthPrefix(payload.length), payload]),
      );
      const reader = new FrameReader(LIMITS);
      const received: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += cut) {
        expect(reader.push(bytes.subarray(at, at + cut), received).ok).toBe(true);
      }
      expect(reader.end().ok).toBe(true);
      expect(received.map((payload) => Buffer.from(payload))).toEqual(
        sent.map((payload) => Buffer.from(payload)),
      );
    }),
  );
});

test("no bytes make the reader throw, and it never holds more than arrived", () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 10 });
  fc.assert(
    fc.property(pieces, (input) => {
      const reader = new FrameReader({ frameBytesMax: 2 ** 31, streamBytesMax: 2 ** 40 });
      const frames: Uint8Array[] = [];
      for (const piece of input) if (!reader.push(piece, frames).ok) return;
      reader.end();
      expect(reader.heldBytes).toBeLessThanOrEqual(64 * 1024);
    }),
  );
});

test("a frame or a stream over its limit fails as soon as the length is known", () => {
  expect(new FrameReader(LIMITS).push(lengthPrefix(1_001), [])).toEqual({
    ok: false,
    error: "frameTooLarge",
  });
  const reader = new FrameReader(LIMITS);
  const first = Buffer.concat([lengthPrefix(1_000), Buffer.alloc(1_000)]);
  expect(reader.push(first, []).ok).toBe(true);
  expect(reader.push(lengthPrefix(501), [])).toEqual({ ok: false, error: "streamTooLarge" });
});

test("an end inside a frame is reported as cut short", () => {
  const reader = new FrameReader(LIMITS);
  expect(reader.push(Buffer.from([0, 0]), []).ok).toBe(true);
  expect(reader.end()).toEqual({ ok: false, error: "cutShort" });
});

test("empty frames are frames", () => {
  const frames: Uint8Array[] = [];
  new FrameReader(LIMITS).push(Buffer.alloc(8), frames);
  expect(frames.map((payload) => payload.length)).toEqual([0, 0]);
});

function lengthPrefix(length: number): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(length);
  return header;
}
