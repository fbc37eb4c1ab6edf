import fc from "fast-check";
import { expect, test } from "vitest";
import { FrameCursor } from "./websocket-frames.ts";

const frame = fc.record({
  opcode: fc.integer({ min: 0, max: 15 }),
  isMasked: fc.boolean(),
  length: fc.oneof(fc.integer({ min: 0, max: 130 }), fc.constantFrom(125, 126, 65_535, 65_536)),
});

test("boundaries are found wherever the bytes are cut", () => {
  fc.assert(
    fc.property(
      fc.array(frame, { minLength: 1, maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 40_000 }), { maxLength: 8 }),
      (frames, cuts) => {
        const parts = frames.map(bytesOf);
        const bytes = Buffer.concat(parts);
        const boundaries = new Set<number>();
        let sum = 0;
        for (const part of parts) boundaries.add((sum += part.length));
        const cursor = new FrameCursor();
        const found = new Set<number>();
        let at = 0;
        for (const cut of [...cuts, bytes.length]) {
          const end = Math.min(bytes.length, at + cut);
          while (at < end) {
            at = cursor.toBoundary(bytes, at, end);
            if (cursor.isAtBoundary) found.add(at);
          }
        }
        expect(found).toEqual(boundaries);
      },
    ),
  );
});

test("all at once ends in the same place as piece by piece", () => {
  const bytes = bytesOf({ opcode: 1, isMasked: true, length: 300 });
  const cursor = new FrameCursor();
  cursor.advance(bytes, 0, bytes.length - 1);
  expect(cursor.isAtBoundary).toBe(false);
  cursor.advance(bytes, bytes.length - 1, bytes.length);
  expect(cursor.isAtBoundary).toBe(true);
});

function bytesOf(one: { opcode: number; isMasked: boolean; length: number }): Buffer {
  const mark = one.isMasked ? 0x80 : 0;
  const head = [0x80 | one.opcode];
  if (one.length < 126) head.push(mark | one.length);
  else if (one.length < 65_536) head.push(mark | 126, one.length >> 8, one.length & 255);
  else
    head.push(
      mark | 127,
      0,
      0,
      0,
      0,
      0,
      one.length >> 16,
      (one.length >> 8) & 255,
      one.length & 255,
    );
  if (one.isMasked) head.push(1, 2, 3, 4);
  return Buffer.concat([Buffer.from(head), Buffer.alloc(one.length, 0x81)]);
}
