/** Packets of a real Corrosion connection, read to the last byte. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { bytesToHex, hexToBytes, readVectors } from "../../../tests/wire-fixtures.ts";
import { decodePacket } from "../swim/codec.ts";
import { FRAME, FrameCursor } from "./frames.ts";
import {
  expandPacketNumber,
  HANDSHAKE,
  hasReservedBits,
  INITIAL,
  packetNumberBytes,
  PacketHeader,
  readTruncated,
  SHORT,
} from "./packet.ts";
import { PlaintextProtection } from "./protection.ts";
import { TestNetwork } from "./quic-network-fixture.ts";
import { NO_ERROR } from "./transport-error.ts";
import { decodeParameters } from "./transport-parameters.ts";

const captured = readVectors<{ fromServer: boolean; hex: string }[]>(
  "quic-plaintext-connection.json",
).map(({ fromServer, hex }) => ({ fromServer, bytes: hexToBytes(hex) }));

test("every captured packet is read to its last byte, and every tag is right", () => {
  const packets = captured.flatMap(({ bytes }) => readDatagram(bytes));
  expect(packets.every(({ isAuthentic, failure }) => isAuthentic && failure === NO_ERROR)).toBe(
    true,
  );
  expect(packets.map(({ kind }) => kind)).toEqual([
    INITIAL,
    INITIAL,
    HANDSHAKE,
    SHORT,
    HANDSHAKE,
    ...Array.from({ length: 8 }, () => SHORT),
  ]);
  const types = new Set(packets.flatMap(({ frames }) => frames.map(({ type }) => type)));
  const expected = [
    FRAME.padding,
    FRAME.ping,
    FRAME.ackEcn,
    FRAME.cryptoData,
    FRAME.newToken,
    FRAME.newConnectionId,
    FRAME.handshakeDone,
    FRAME.immediateAck,
    FRAME.datagramWithLength,
  ];
  expect([...types].sort(byNumber)).toEqual(expected.sort(byNumber));
});

test("the client's first packet and the server's handshake carry transport parameters", () => {
  const [first, answer] = captured.map(({ bytes }) => readDatagram(bytes));
  const client = first![0]!.frames.find(({ type }) => type === FRAME.cryptoData)!;
  const server = answer![1]!.frames.find(({ type }) => type === FRAME.cryptoData)!;
  expect(decodeParameters(client.bytes, "client").ok).toBe(true);
  const decoded = decodeParameters(server.bytes, "server");
  if (!decoded.ok) throw new Error(decoded.error);
  // The server confirms the id that the client made up for it.
  const made = bytesToHex(captured[0]!.bytes.subarray(6, 6 + captured[0]!.bytes[5]!));
  expect(bytesToHex(decoded.value.originalDestinationConnectionId!)).toBe(made);
});

test("packets of our own, of both sides, are read by the same decoder", () => {
  const network = new TestNetwork(9);
  const sent: Uint8Array[] = [];
  network.onPacket = (_, packet) => sent.push(packet.slice()) > 0;
  const { client, server } = network.connected();
  client.write(client.streams.open(1), new Uint8Array(5_000), true);
  server.sendDatagram(new Uint8Array(900));
  network.pass(200);
  client.close(0, "done", network.nowMs);
  network.pass(200);
  const packets = sent.flatMap((bytes) => readDatagram(bytes));
  expect(packets.every(({ isAuthentic, failure }) => isAuthentic && failure === NO_ERROR)).toBe(
    true,
  );
  expect(new Set(packets.map(({ kind }) => kind))).toEqual(new Set([INITIAL, HANDSHAKE, SHORT]));
  const types = new Set(packets.flatMap(({ frames }) => frames.map(({ type }) => type)));
  expect(types).toContain(FRAME.datagramWithLength);
  expect(types).toContain(FRAME.applicationClose);
});

test("the captured datagram is the SWIM packet of the first contact", () => {
  const datagrams = captured.flatMap(({ bytes }) =>
    readDatagram(bytes).flatMap(({ frames }) =>
      frames.filter(({ type }) => type >= FRAME.datagram),
    ),
  );
  expect(datagrams).toHaveLength(1);
  const decoded = decodePacket(datagrams[0]!.bytes);
  expect(decoded).toMatchObject({ ok: true, value: { message: { kind: "announce" } } });
});

test("a captured packet with any bit changed is refused by its tag or by its header", () => {
  fc.assert(
    fc.property(fc.nat({ max: captured.length - 1 }), fc.nat(), (which, where) => {
      const bytes = captured[which]!.bytes.slice();
      const before = readDatagram(bytes).filter(({ isAuthentic }) => isAuthentic).length;
      bytes[(where >> 3) % bytes.length]! ^= 1 << (where & 7);
      const after = readDatagram(bytes).filter(({ isAuthentic }) => isAuthentic).length;
      expect(after).toBeLessThan(before);
    }),
  );
});

test("no damage to captured datagrams makes reading throw", () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 6 });
  fc.assert(
    fc.property(fc.nat({ max: captured.length - 1 }), damage, fc.nat(), (which, changes, cut) => {
      const bytes = captured[which]!.bytes.slice(0, cut % 1_400);
      for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte;
      for (const { frames } of readDatagram(bytes, false)) {
        for (const { bytes: part } of frames) expect(part.length).toBeLessThanOrEqual(bytes.length);
      }
    }),
    { numRuns: 500 },
  );
});

interface ReadPacket {
  readonly kind: number;
  readonly number: number;
  readonly isAuthentic: boolean;
  readonly failure: number;
  readonly frames: readonly { readonly type: number; readonly bytes: Uint8Array }[];
}

/** All packets of a datagram; `keepsOut` = what is not authentic is not read further. */
function readDatagram(datagram: Uint8Array, keepsOut = true): ReadPacket[] {
  const packets: ReadPacket[] = [];
  const header = new PacketHeader();
  for (let at = 0; at < datagram.length; at = header.end) {
    if (!header.read(datagram, at, 8)) break;
    const { start, numberStart, end } = header;
    const numberBytes = packetNumberBytes(datagram[start]!);
    const place = { start, numberStart, numberBytes, end };
    if (!protection.unmask(datagram, place)) break;
    const isAuthentic = protection.open(datagram, place) && !hasReservedBits(datagram[start]!);
    const number = expandPacketNumber(
      readTruncated(datagram, numberStart, numberBytes),
      numberBytes,
      -1,
    );
    const cursor = new FrameCursor();
    cursor.reset(datagram, numberStart + numberBytes, end - protection.tagBytes);
    const frames: { type: number; bytes: Uint8Array }[] = [];
    while ((isAuthentic || !keepsOut) && cursor.next()) {
      frames.push({ type: cursor.type, bytes: datagram.slice(cursor.dataStart, cursor.dataEnd) });
    }
    packets.push({ kind: header.kind, number, isAuthentic, failure: cursor.failure, frames });
  }
  return packets;
}

const protection = new PlaintextProtection();

function byNumber(first: number, second: number): number {
  return first - second;
}
