import fc from "fast-check";
import { expect, test } from "vitest";
import { FrameSplitter, frameHeader, joinFrames } from "./frame-splitter.ts";

test("frames survive any fragmentation of the stream", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 })),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
      (payloads, sizes) => {
        const splitter = new FrameSplitter();
        const stream = joinFrames(payloads);
        const frames: Uint8Array[] = [];
        for (let at = 0, turn = 0; at < stream.length; turn += 1) {
          const size = sizes[turn % sizes.length]!;
          frames.push(...splitter.push(stream.subarray(at, at + size)));
          at += size;
        }
        expect(frames).toEqual(payloads);
        expect(splitter.isAtBoundary).toBe(true);
      },
    ),
  );
});

test("several frames in one fragment come out in order, an empty one too", () => {
  const payloads = [Uint8Array.of(1, 2), new Uint8Array(0), Uint8Array.of(3)];
  expect(new FrameSplitter().push(joinFrames(payloads))).toEqual(payloads);
});

test("a frame is a copy, so the receive buffer may be used again", () => {
  const buffer = joinFrames([Uint8Array.of(7)]);
  const [frame] = new FrameSplitter().push(buffer);
  buffer.fill(0);
  expect(frame).toEqual(Uint8Array.of(7));
});

test("a header beyond the limit fails the stream and nothing is taken afterwards", () => {
  const splitter = new FrameSplitter(10);
  expect(splitter.push(frameHeader(11))).toEqual([]);
  expect(splitter.failure).toBe("frame-too-large");
  expect(splitter.push(joinFrames([Uint8Array.of(1)]))).toEqual([]);
  expect(splitter.isAtBoundary).toBe(false);
});

test("a frame of exactly the limit is taken", () => {
  const payload = new Uint8Array(10).fill(1);
  expect(new FrameSplitter(10).push(joinFrames([payload]))).toEqual([payload]);
});

test("a promise of 100 MiB buffers only what has arrived", () => {
  const splitter = new FrameSplitter();
  splitter.push(frameHeader(100 * 1024 * 1024));
  splitter.push(new Uint8Array(5));
  expect(splitter.bufferedBytes).toBe(5);
  expect(splitter.isAtBoundary).toBe(false);
});

test("no bytes make the splitter throw", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array()), (fragments) => {
      const splitter = new FrameSplitter(1000);
      for (const fragment of fragments) splitter.push(fragment);
    }),
  );
});
