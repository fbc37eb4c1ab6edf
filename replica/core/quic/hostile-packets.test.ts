/** Authentic packets that break the protocol: each closes the connection with the RFC's error. */
import { expect, test } from "vitest";
import { hexToBytes } from "../../../tests/wire-fixtures.ts";
import { writeShortHeader } from "./packet.ts";
import { PlaintextProtection } from "./protection.ts";
import { TestNetwork } from "./quic-network-fixture.ts";
import { RecvStream } from "./recv-stream.ts";
import {
  CONNECTION_ID_LIMIT_ERROR,
  FINAL_SIZE_ERROR,
  FLOW_CONTROL_ERROR,
  FRAME_ENCODING_ERROR,
  NO_ERROR,
  PROTOCOL_VIOLATION,
  STREAM_LIMIT_ERROR,
  STREAM_STATE_ERROR,
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

/** A packet of the client's with these frames, as somebody on the way could make it. */
function packetWith(network: TestNetwork, frames: Uint8Array): Uint8Array {
  let dcid = new Uint8Array(0);
  network.onPacket = (from, packet) => {
    if (from === "left" && (packet[0]! & 0x80) === 0) dcid = packet.slice(1, 9);
    return true;
  };
  for (const connection of network.left.connections) connection.ping();
  network.pass(100);
  const writer = new WireWriter();
  writer.reset(new Uint8Array(1_000), 0);
  writeShortHeader(writer, dcid, { number: 60, numberBytes: 1 });
  writer.copy(frames);
  const packet = writer.bytes.subarray(0, writer.at + 8);
  const place = { start: 0, numberStart: 9, numberBytes: 1, end: packet.length };
  new PlaintextProtection().seal(packet, place);
  return packet;
}

function reseal(packet: Uint8Array): void {
  // First byte, version, two ids of 8 bytes with their lengths, no token, a length of two bytes.
  const place = { start: 0, numberStart: 26, numberBytes: 1, end: packet.length };
  new PlaintextProtection().seal(packet, place);
}

function offers(count: number): string {
  return Array.from({ length: count }, (_, at) => `18 0${at + 2} 00 01 a${at} ${token}`).join(" ");
}
