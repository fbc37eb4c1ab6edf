import fc from "fast-check";
import { expect, test } from "vitest";
import { hexToBytes } from "../../../tests/wire-fixtures.ts";
import {
  FRAME,
  FrameCursor,
  isAckEliciting,
  streamFrameOverhead,
  writeAck,
  writeClose,
  writeCrypto,
  writeDatagram,
  writeIntegers,
  writeNewConnectionId,
  writePath,
  writeStreamHead,
} from "./frames.ts";
import { FRAME_ENCODING_ERROR, NO_ERROR, PROTOCOL_VIOLATION } from "./transport-error.ts";
import { WireWriter } from "./wire.ts";

const integer = fc.maxSafeNat();
const bytes = fc.uint8Array({ maxLength: 50 });

test("frames of one or more integers come back as they were written", () => {
  const types = [
    [FRAME.resetStream, ["streamId", "errorCode", "finalSize"]],
    [FRAME.stopSending, ["streamId", "errorCode"]],
    [FRAME.maxData, ["maximum"]],
    [FRAME.maxStreamData, ["streamId", "maximum"]],
    [FRAME.maxStreamsBidi, ["maximum"]],
    [FRAME.maxStreamsUni, ["maximum"]],
    [FRAME.dataBlocked, ["maximum"]],
    [FRAME.streamDataBlocked, ["streamId", "maximum"]],
    [FRAME.streamsBlockedBidi, ["maximum"]],
    [FRAME.streamsBlockedUni, ["maximum"]],
    [FRAME.retireConnectionId, ["sequence"]],
  ] as const;
  fc.assert(
    fc.property(fc.constantFrom(...types), fc.tuple(integer, integer, integer), (one, values) => {
      const [type, fields] = one;
      const given = values.slice(0, fields.length);
      const cursor = reread((writer) => writeIntegers(writer, type, ...given));
      expect(cursor.next()).toBe(true);
      expect(cursor.type).toBe(type);
      expect(fields.map((field) => cursor[field])).toEqual(given);
      expect([cursor.next(), cursor.failure]).toEqual([false, NO_ERROR]);
    }),
  );
});

test("stream frames come back with their bytes, and take the overhead foretold", () => {
  fc.assert(
    fc.property(integer, fc.nat(), bytes, fc.boolean(), (streamId, offset, data, isFin) => {
      const cursor = reread((writer) => {
        writeStreamHead(writer, { streamId, offset, length: data.length, isFin });
        expect(writer.at).toBe(streamFrameOverhead(streamId, offset, data.length));
        writer.copy(data);
        writer.u8(FRAME.ping);
      });
      expect(cursor.next()).toBe(true);
      expect(cursor).toMatchObject({ streamId, offset, isFin });
      expect(contents(cursor)).toEqual(data);
      expect([cursor.next(), cursor.type]).toEqual([true, FRAME.ping]);
    }),
  );
});

test("frames with bytes come back", () => {
  fc.assert(
    fc.property(integer, bytes, fc.boolean(), (number, data, isApplication) => {
      const offset = Math.floor(number / 2);
      const close = { isApplication, errorCode: number, frameType: 6, reason: data };
      const cursor = reread((writer) => {
        writeCrypto(writer, offset, data.length);
        writer.copy(data);
        writeDatagram(writer, data);
        writeClose(writer, close);
      });
      expect([cursor.next(), cursor.type, cursor.offset]).toEqual([true, FRAME.cryptoData, offset]);
      expect(contents(cursor)).toEqual(data);
      expect([cursor.next(), cursor.type]).toEqual([true, FRAME.datagramWithLength]);
      expect(contents(cursor)).toEqual(data);
      expect([cursor.next(), cursor.errorCode]).toEqual([true, number]);
      expect(cursor.type).toBe(isApplication ? FRAME.applicationClose : FRAME.connectionClose);
      if (!isApplication) expect(cursor.closedFrameType).toBe(6);
      expect(contents(cursor)).toEqual(data);
      expect([cursor.next(), cursor.failure]).toEqual([false, NO_ERROR]);
    }),
  );
});

test("an offered connection id and a path challenge come back", () => {
  const id = hexToBytes("0102030405060708");
  const resetToken = hexToBytes("00112233445566778899aabbccddeeff");
  const cursor = reread((writer) => {
    writeNewConnectionId(writer, { sequence: 3, retirePriorTo: 2, id, resetToken });
    writePath(writer, FRAME.pathChallenge, id);
  });
  expect(cursor.next()).toBe(true);
  expect(cursor).toMatchObject({ type: FRAME.newConnectionId, sequence: 3, retirePriorTo: 2 });
  expect(contents(cursor)).toEqual(id);
  expect(cursor.resetTokenStart).toBe(cursor.dataEnd);
  expect([cursor.next(), cursor.type]).toEqual([true, FRAME.pathChallenge]);
  expect(contents(cursor)).toEqual(id);
  expect(cursor.next()).toBe(false);
});

test("acknowledged ranges come back; where there is no room, the lowest are left out", () => {
  const gaps = fc.array(fc.tuple(fc.nat({ max: 99 }), fc.nat({ max: 99 })), {
    minLength: 1,
    maxLength: 40,
  });
  fc.assert(
    fc.property(gaps, fc.nat(), fc.integer({ min: 0, max: 60 }), (steps, delay, bytesMax) => {
      const ranges = rangesFrom(steps);
      const writer = newWriter();
      if (!writeAck(writer, { ranges, delay, bytesMax })) {
        expect(writer.at).toBe(0);
        expect(bytesMax).toBeLessThan(20);
        return;
      }
      expect(writer.at).toBeLessThanOrEqual(bytesMax);
      const cursor = new FrameCursor();
      cursor.reset(writer.bytes, 0, writer.at);
      expect(cursor.next()).toBe(true);
      expect(cursor.ackDelay).toBe(delay);
      expect(cursor.ackRanges).toEqual(ranges.slice(0, cursor.ackRanges.length));
      if (bytesMax === 60 && steps.length < 5) expect(cursor.ackRanges).toEqual(ranges);
      expect([cursor.next(), cursor.failure]).toEqual([false, NO_ERROR]);
    }),
  );
});

test("an acknowledgement with counts of congestion marks is read", () => {
  const cursor = cursorOn("03 0a 05 00 02 07 08 09 01");
  expect(cursor.next()).toBe(true);
  expect(cursor).toMatchObject({ ackRanges: [8, 10], ackDelay: 5, ecnCongested: 9 });
  expect([cursor.next(), cursor.type]).toEqual([true, FRAME.ping]);
});

test("a run of padding is one frame, and acknowledges nothing", () => {
  const cursor = cursorOn("000000 01 0000");
  const types: number[] = [];
  while (cursor.next()) types.push(cursor.type);
  expect(types).toEqual([FRAME.padding, FRAME.ping, FRAME.padding]);
  expect(types.map(isAckEliciting)).toEqual([false, true, false]);
});

test.each([
  ["an unknown type", "3f", FRAME_ENCODING_ERROR],
  ["a type in a longer form than it needs", "4001", PROTOCOL_VIOLATION],
  ["a stream frame cut short", "0a 00 05 0102", FRAME_ENCODING_ERROR],
  [
    "a stream that reaches beyond all offsets",
    "0e 00 ffffffffffffffff 01 00",
    FRAME_ENCODING_ERROR,
  ],
  ["an acknowledgement of negative numbers", "02 05 00 00 06", FRAME_ENCODING_ERROR],
  ["a gap below zero", "02 05 00 01 02 0202", FRAME_ENCODING_ERROR],
  ["more ranges than there are bytes", "02 05 00 ffffffffffffffff 00", FRAME_ENCODING_ERROR],
  ["a connection id of no bytes", `18 01 00 00 ${"00".repeat(16)}`, FRAME_ENCODING_ERROR],
  ["an id that retires itself", `18 01 02 01 aa ${"00".repeat(16)}`, FRAME_ENCODING_ERROR],
  ["more streams than ids", "12 ffffffffffffffff", FRAME_ENCODING_ERROR],
  ["a token of no bytes", "07 00", FRAME_ENCODING_ERROR],
])("%s is refused", (_, hex, failure) => {
  const cursor = cursorOn(hex);
  expect([cursor.next(), cursor.failure]).toEqual([false, failure]);
  expect(cursor.next()).toBe(false);
});

test("no bytes make the cursor throw, stand still or leave the payload", () => {
  const cursor = new FrameCursor();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (payload) => {
      const padded = new Uint8Array(payload.length + 10).fill(1);
      padded.set(payload, 5);
      cursor.reset(padded, 5, 5 + payload.length);
      let at = 5;
      while (cursor.next()) {
        expect(cursor.at).toBeGreaterThan(at);
        expect(cursor.at).toBeLessThanOrEqual(5 + payload.length);
        at = cursor.at;
        if (cursor.type >= FRAME.stream && cursor.type <= FRAME.streamLast) {
          expect(cursor.dataEnd).toBeLessThanOrEqual(5 + payload.length);
        }
        if (cursor.type === FRAME.ack) expectDescending(cursor.ackRanges);
      }
    }),
    { numRuns: 2_000 },
  );
});

function expectDescending(ranges: readonly number[]): void {
  for (let at = 0; at < ranges.length; at += 2) {
    expect(ranges[at]).toBeLessThanOrEqual(ranges[at + 1]!);
    if (at > 0) expect(ranges[at + 1]).toBeLessThan(ranges[at - 2]! - 1);
    expect(ranges[at]).toBeGreaterThanOrEqual(0);
  }
}

/** Ranges from the top down, from pairs of (gap, length). */
function rangesFrom(steps: readonly (readonly [number, number])[]): number[] {
  const ranges: number[] = [];
  let below = 1_000_000;
  for (const [gap, length] of steps) {
    const largest = below - gap - 2;
    below = largest - length;
    ranges.push(below, largest);
  }
  return ranges;
}

function reread(write: (writer: WireWriter) => void): FrameCursor {
  const writer = newWriter();
  write(writer);
  const cursor = new FrameCursor();
  cursor.reset(writer.bytes, 0, writer.at);
  source = writer.bytes;
  return cursor;
}

function cursorOn(hex: string): FrameCursor {
  const cursor = new FrameCursor();
  source = hexToBytes(hex);
  cursor.reset(source, 0, source.length);
  return cursor;
}

function contents(cursor: FrameCursor): Uint8Array {
  return source.slice(cursor.dataStart, cursor.dataEnd);
}

function newWriter(): WireWriter {
  const writer = new WireWriter();
  writer.reset(new Uint8Array(1_000), 0);
  return writer;
}

/** What the last cursor reads. */
let source: Uint8Array = new Uint8Array(0);
