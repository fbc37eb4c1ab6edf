/** Authentic packets that break the protocol: each closes the connection with the RFC's error. */
import { expect, test } from "vitest";
import { hexToBytes } from "../../../tests/wire-fixtures.ts";
import {
  finishLongHeader,
  INITIAL,
  INITIAL_DATAGRAM_BYTES,
  writeLongHeader,
  writeShortHeader,
} from "./packet.ts";
import { PlaintextProtection } from "./protection.ts";
import { CLEAR_NETWORK, TestNetwork } from "./quic-network-fixture.ts";
import { RecvStream } from "./recv-stream.ts";
import {
  APPLICATION_ERROR,
  CONNECTION_ID_LIMIT_ERROR,
  CRYPTO_BUFFER_EXCEEDED,
  FINAL_SIZE_ERROR,
  FLOW_CONTROL_ERROR,
  FRAME_ENCODING_ERROR,
  NO_ERROR,
  PROTOCOL_VIOLATION,
  STREAM_LIMIT_ERROR,
  STREAM_STATE_ERROR,
  TRANSPORT_PARAMETER_ERROR,
} from "./transport-error.ts";
import { WireWriter } from "./wire.ts";

const token = "00".repeat(16);

test.each([
  ["an acknowledgement of packets never sent", "02 7000 00 00 00", PROTOCOL_VIOLATION],
  ["a stream beyond the limit", "0a 4402 01 ff", STREAM_LIMIT_ERROR],
  ["a stream beyond all ids", "0a ffffffffffffffff 01 ff", STREAM_LIMIT_ERROR],
  ["bytes on a stream that only we send on", "0a 03 01 ff", STREAM_STATE_ERROR],
  ["a stream of ours that we never opened", "0a 01 01 ff", STREAM_STATE_ERROR],
  ["credit for a stream that only the peer sends on", "11 02 44ff", STREAM_STATE_ERROR],
  ["bytes beyond the stream's credit", "0e 02 8013 12d0 01 ff", FLOW_CONTROL_ERROR],
  ["a reset beyond the stream's credit", "04 02 00 8013 12d1", FLOW_CONTROL_ERROR],
  ["an end that moves", "0b 02 02 ffff 0b 02 01 ff", FINAL_SIZE_ERROR],
  ["bytes behind the end", "0b 02 01 ff 0e 02 05 01 ff", FINAL_SIZE_ERROR],
  ["a reset short of what came", "0a 02 02 ffff 04 02 00 01", FINAL_SIZE_ERROR],
  ["a handshake said to be done to the server", "1e", PROTOCOL_VIOLATION],
  ["a token for the server", "07 01 00", PROTOCOL_VIOLATION],
  ["an id retired that was never given", "19 09", PROTOCOL_VIOLATION],
  ["ids retired by guessing the next", "19 01 19 02 19 03", PROTOCOL_VIOLATION],
  ["more ids than were asked for", offers(5), CONNECTION_ID_LIMIT_ERROR],
  [
    "an id given twice differently",
    `18 02 00 01 aa ${token} 18 02 00 01 bb ${token}`,
    PROTOCOL_VIOLATION,
  ],
  ["a frame that nobody knows", "21", FRAME_ENCODING_ERROR],
  ["a packet with nothing in it", "", PROTOCOL_VIOLATION],
])("%s closes the connection", (_, frames, errorCode) => {
  const network = new TestNetwork(21);
  const { server } = network.connected();
  network.pass(500);
  server.receive(packetWith(network, hexToBytes(frames)), network.nowMs);
  expect(server.end).toMatchObject({ kind: "local", isApplication: false, errorCode });
  // The peer hears of it.
  const client = [...network.left.connections][0]!;
  network.until(() => client.end !== null, 1_000);
  expect(client.end).toMatchObject({ kind: "peer", isApplication: false, errorCode });
});

test.each([
  ["bytes of a stream", "0a 02 01 ff", PROTOCOL_VIOLATION],
  ["an application's goodbye", "1d 00 00", PROTOCOL_VIOLATION],
  ["a handshake said to be done", "1e", PROTOCOL_VIOLATION],
  ["parameters that cannot be read", "06 00 01 ff", TRANSPORT_PARAMETER_ERROR],
  ["parameters under another's id", "06 00 03 0f01aa", TRANSPORT_PARAMETER_ERROR],
  ["handshake bytes far ahead", "06 80004001 01 ff", CRYPTO_BUFFER_EXCEEDED],
  ["handshake bytes in many pieces", pieces(200), CRYPTO_BUFFER_EXCEEDED],
  ["an acknowledgement of packets never sent", "02 05 00 00 00", PROTOCOL_VIOLATION],
])("%s in a client's first packet ends the attempt", (_, frames, errorCode) => {
  const network = new TestNetwork(26);
  network.onPacket = () => false;
  network.right.receive(firstPacket(hexToBytes(frames)), network.nowMs);
  const [server] = network.right.connections;
  expect(server?.end).toMatchObject({ kind: "local", isApplication: false, errorCode });
  network.pass(60_000);
  expect(network.right.connections.size).toBe(0);
  expect(network.sentBytes.right).toBeLessThanOrEqual(3 * INITIAL_DATAGRAM_BYTES);
});

test("bits that version 1 keeps clear must be clear, in either form of header", () => {
  const network = new TestNetwork(27);
  network.right.receive(firstPacket(hexToBytes("01")), network.nowMs);
  network.right.receive(firstPacket(hexToBytes("01"), { number: 1, firstBits: 4 }), network.nowMs);
  const [early] = network.right.connections;
  expect(early?.end).toMatchObject({ kind: "local", errorCode: PROTOCOL_VIOLATION });
  const open = new TestNetwork(28);
  const { server } = open.connected();
  server.receive(packetWith(open, hexToBytes("01"), { firstBits: 0x18 }), open.nowMs);
  expect(server.end).toMatchObject({ kind: "local", errorCode: PROTOCOL_VIOLATION });
});

test("bytes beyond the credit of the whole connection close it", () => {
  const options = { parameters: { initialMaxData: 1_000 } };
  const network = new TestNetwork(29, CLEAR_NETWORK, { right: options });
  const { server } = network.connected();
  const whole = packetWith(network, hexToBytes("0e 02 43e7 01 ff"));
  const beyond = packetWith(network, hexToBytes("0a 06 01 ff"), { number: 61 });
  server.receive(whole, network.nowMs);
  expect(server.phase).toBe("open");
  server.receive(beyond, network.nowMs);
  expect(server.end).toMatchObject({ kind: "local", errorCode: FLOW_CONTROL_ERROR });
});

test("a forged packet is dropped without a trace, and one that comes again counts once", () => {
  const network = new TestNetwork(30);
  const { server } = network.connected();
  const packet = packetWith(network, hexToBytes("0b 02 02 aabb 30 cc"));
  const before = server.packetsAccepted;
  const forged = packet.slice();
  forged[forged.length - 1]! ^= 1;
  server.receive(forged, network.nowMs);
  expect([server.packetsAccepted - before, server.streams.isReadable()]).toEqual([0, false]);
  for (let times = 0; times < 3; times += 1) server.receive(packet.slice(), network.nowMs);
  expect([server.packetsAccepted - before, server.datagramCount]).toEqual([1, 1]);
  expect(server.streams.read(2, new Uint8Array(10))).toBe(2);
});

test("a path challenge is answered with its own bytes", () => {
  const network = new TestNetwork(31);
  const { server } = network.connected();
  server.receive(packetWith(network, hexToBytes("1a 0102030405060708")), network.nowMs);
  const sent: string[] = [];
  network.onPacket = (from, packet) => {
    if (from === "right") sent.push(Buffer.from(packet).toString("hex"));
    return true;
  };
  network.pass(100);
  expect(sent.filter((packet) => packet.includes("1b0102030405060708"))).toHaveLength(1);
});

test("ids that the peer wants retired are used no more, and that is told", () => {
  const network = new TestNetwork(32);
  const { server } = network.connected();
  const id = "a1".repeat(8);
  const frames = hexToBytes(`18 02 02 08 ${id} ${token}`);
  server.receive(packetWith(network, frames), network.nowMs);
  const sent: string[] = [];
  network.onPacket = (from, packet) => {
    if (from === "right") sent.push(Buffer.from(packet).toString("hex"));
    return true;
  };
  network.pass(100);
  expect(sent.length).toBeGreaterThan(0);
  for (const packet of sent) expect(packet.slice(2, 18)).toBe(id);
  expect(sent.some((packet) => packet.includes("1900") && packet.includes("1901"))).toBe(true);
});

test("a client ignores tokens for later connections", () => {
  const network = new TestNetwork(33);
  const { client } = network.connected();
  const before = client.packetsAccepted;
  const packet = packetWith(network, hexToBytes("07 02 aabb"), { from: "right" });
  client.receive(packet, network.nowMs);
  expect(client.packetsAccepted).toBeGreaterThan(before);
  expect(client.phase).toBe("open");
});

test("an application's goodbye during the handshake tells a stranger neither code nor reason", () => {
  const network = new TestNetwork(34);
  const client = network.left.connect(network.nowMs);
  network.until(() => network.right.accepted.length > 0);
  client.close(77, "a secret", network.nowMs);
  const [server] = network.right.accepted;
  network.until(() => server?.end !== null && server?.end !== undefined, 5_000);
  expect(server?.end).toMatchObject({
    kind: "peer",
    isApplication: false,
    errorCode: APPLICATION_ERROR,
    reason: "",
  });
});

test.each([
  ["one frame twice", "0a 02 02 aabb 0a 02 02 aabb"],
  ["a path challenge", "1a 0102030405060708"],
  ["blocked notices", "14 05 15 02 05 16 05 17 05"],
  ["a demand for an early acknowledgement", "1f"],
  ["limits that fall", "10 01 12 01 13 01"],
])("%s does no harm", (_, frames) => {
  const network = new TestNetwork(22);
  const { server } = network.connected();
  network.pass(500);
  const before = server.packetsAccepted;
  server.receive(packetWith(network, hexToBytes(frames)), network.nowMs);
  expect(server.packetsAccepted).toBeGreaterThan(before);
  expect(server.phase).toBe("open");
});

test("of bytes that come twice and differ, the first to come are read", () => {
  const stream = new RecvStream(2, 1_000);
  expect(stream.add(2, hexToBytes("c1c2"), false)).toBe(NO_ERROR);
  expect(stream.add(0, hexToBytes("d1d2d3d4d5"), true)).toBe(NO_ERROR);
  expect(stream.add(1, hexToBytes("eeeeee"), false)).toBe(NO_ERROR);
  const out = new Uint8Array(10);
  expect(stream.read(out)).toBe(5);
  expect(out.subarray(0, 5)).toEqual(hexToBytes("d1d2c1c2d5"));
  expect([stream.isAtEnd, stream.add(0, hexToBytes("d1"), false), stream.isReadable]).toEqual([
    true,
    NO_ERROR,
    true,
  ]);
});

test("handshakes that never finish cost three times their bytes at most, and end", () => {
  // Goal: nothing is owed to an address that may be forged. Method: first packets whose sender never
  // answers; their connections must give up by themselves and have sent at most what is allowed.
  const source = new TestNetwork(23);
  let first = new Uint8Array(0);
  source.onPacket = (_, packet) => ((first = packet.slice()), false);
  source.left.connect(source.nowMs);
  source.pass(0);
  const network = new TestNetwork(24);
  network.onPacket = () => false;
  const attempts = 200;
  for (let at = 0; at < attempts; at += 1) {
    const packet = first.slice();
    // Another id made up for us, sealed anew.
    packet[6] = at;
    reseal(packet);
    network.right.receive(packet, network.nowMs);
  }
  expect(network.right.connections.size).toBe(attempts);
  network.pass(40_000);
  expect(network.right.connections.size).toBe(0);
  expect(network.sentBytes.right).toBeGreaterThan(0);
  expect(network.sentBytes.right).toBeLessThanOrEqual(3 * attempts * first.length);
});

/** A packet of one side's with these frames, as somebody on the way could make it. */
function packetWith(
  network: TestNetwork,
  frames: Uint8Array,
  options: { from?: "left" | "right"; number?: number; firstBits?: number } = {},
): Uint8Array {
  const { from = "left", number = 60, firstBits = 0 } = options;
  let dcid = new Uint8Array(0);
  network.onPacket = (sender, packet) => {
    if (sender === from && (packet[0]! & 0x80) === 0) dcid = packet.slice(1, 9);
    return true;
  };
  for (const connection of network[from].connections) connection.ping();
  network.pass(100);
  const writer = new WireWriter();
  writer.reset(new Uint8Array(1_000), 0);
  writeShortHeader(writer, dcid, { number, numberBytes: 1 });
  writer.copy(frames);
  const packet = writer.bytes.subarray(0, writer.at + 8);
  packet[0]! |= firstBits;
  const place = { start: 0, numberStart: 9, numberBytes: 1, end: packet.length };
  new PlaintextProtection().seal(packet, place);
  return packet;
}

/** A client's first datagram with these frames, padded as it must be. */
function firstPacket(
  frames: Uint8Array,
  { number = 0, firstBits = 0 }: { number?: number; firstBits?: number } = {},
): Uint8Array {
  const writer = new WireWriter();
  writer.reset(new Uint8Array(INITIAL_DATAGRAM_BYTES), 0);
  const [dcid, scid] = [hexToBytes("d1d2d3d4d5d6d7d8"), hexToBytes("c1c2c3c4c5c6c7c8")];
  const header = { kind: INITIAL, dcid, scid, number, numberBytes: 1 };
  const lengthAt = writeLongHeader(writer, header);
  writer.copy(frames);
  const packet = writer.bytes;
  packet[0]! |= firstBits;
  finishLongHeader(packet, lengthAt, packet.length);
  reseal(packet);
  return packet;
}

/** Single bytes of the handshake with gaps between them. */
function pieces(count: number): string {
  const offset = (at: number): string => (0x4000 + at * 2 + 1).toString(16);
  return Array.from({ length: count }, (_, at) => `06 ${offset(at)} 01 ff`).join(" ");
}

function reseal(packet: Uint8Array): void {
  // First byte, version, two ids of 8 bytes with their lengths, no token, a length of two bytes.
  const place = { start: 0, numberStart: 26, numberBytes: 1, end: packet.length };
  new PlaintextProtection().seal(packet, place);
}

function offers(count: number): string {
  return Array.from({ length: count }, (_, at) => `18 0${at + 2} 00 01 a${at} ${token}`).join(" ");
}
