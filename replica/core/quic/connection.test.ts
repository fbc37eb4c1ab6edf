/** Connections at their boundary, on a network in virtual time. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { hexToBytes } from "../../../tests/wire-fixtures.ts";
import type { Connection } from "./connection.ts";
import { CLEAR_NETWORK, TestNetwork } from "./quic-network-fixture.ts";
import { STREAM_BROKEN } from "./stream-set.ts";

test("a handshake takes one round trip, and both sides learn that it is complete", () => {
  const network = new TestNetwork(1);
  const client = network.left.connect(network.nowMs);
  network.until(() => client.phase === "open");
  expect(network.nowMs).toBe(1_010);
  expect(network.until(() => client.isConfirmed)).toBe(true);
  expect(network.nowMs).toBe(1_020);
  expect(network.right.accepted.map(({ phase }) => phase)).toEqual(["open"]);
  expect(client.rtt?.minMs).toBeCloseTo(10);
});

test("a client's first packets are of full size, and the server sends no more than thrice that", () => {
  const network = new TestNetwork(1);
  const sizes: number[] = [];
  network.onPacket = (from, packet) => {
    if (from === "left") sizes.push(packet.length);
    return from === "right";
  };
  network.left.connect(network.nowMs);
  network.until(() => sizes.length >= 3);
  expect(sizes).toEqual([1_200, 1_200, 1_200]);

  const server = new TestNetwork(2);
  let received = 0;
  server.onPacket = (from, packet) => {
    if (from === "left") received += packet.length;
    return from === "left" && received <= 1_200;
  };
  server.left.connect(server.nowMs);
  server.pass(20_000);
  expect(server.sentBytes.right).toBeGreaterThan(0);
  expect(server.sentBytes.right).toBeLessThanOrEqual(3 * 1_200);
});

test("streams of both kinds and both sides carry bytes and ends", () => {
  const network = new TestNetwork(3);
  const { client, server } = network.connected();
  const ids = [client.streams.open(1), client.streams.open(0), server.streams.open(1)];
  expect(ids).toEqual([2, 0, 3]);
  write(client, 2, "uni");
  write(client, 0, "question");
  write(server, 3, "from the server");
  expect(network.until(() => server.streams.isReadable(0) && client.streams.isReadable(3))).toBe(
    true,
  );
  expect(readAll(server, 2)).toEqual({ text: "uni", isFin: true });
  expect(readAll(server, 0)).toEqual({ text: "question", isFin: true });
  write(server, 0, "answer");
  network.until(() => client.streams.isReadable(0));
  expect(readAll(client, 0)).toEqual({ text: "answer", isFin: true });
  expect(readAll(client, 3)).toEqual({ text: "from the server", isFin: true });
});

test("more streams than the peer grants must wait until some are over", () => {
  const network = new TestNetwork(4);
  const { client, server } = network.connected();
  for (let at = 0; at < 256; at += 1) write(client, client.streams.open(1), `${at}`);
  expect([client.streams.left(1), client.streams.open(1)]).toEqual([0, -1]);
  network.until(() => server.streams.isReadable(255 * 4 + 2));
  for (const id of server.streams.readable()) readAll(server, id);
  expect(network.until(() => client.streams.left(1) > 0)).toBe(true);
  expect(client.streams.open(1)).toBe(256 * 4 + 2);
});

test("a peer that does not read stops the sender, and reading lets it go on", () => {
  const network = new TestNetwork(5);
  const { client, server } = network.connected();
  const id = client.streams.open(0);
  let written = 0;
  const push = (): void => {
    const taken = client.write(id, new Uint8Array(100_000), false);
    if (taken > 0) written += taken;
  };
  network.until(() => (push(), false), 5_000);
  expect(written).toBe(1_250_000);
  const out = new Uint8Array(700_000);
  expect(server.streams.read(id, out)).toBe(700_000);
  network.until(() => (push(), false), 5_000);
  expect(written).toBe(1_950_000);
});

test("a reset stream breaks for its reader, a stopped one for its writer", () => {
  const network = new TestNetwork(6);
  const { client, server } = network.connected();
  const [first, second] = [client.streams.open(0), client.streams.open(0)];
  client.write(first, new Uint8Array(10), false);
  client.write(second, new Uint8Array(10), false);
  network.until(() => server.streams.isReadable(second));
  // That everything sent before was read makes no end of a reset.
  const out = new Uint8Array(100);
  expect(server.streams.read(first, out)).toBe(10);
  client.streams.reset(first, 7);
  server.streams.stop(second);
  network.until(() => client.write(second, new Uint8Array(1), false) === STREAM_BROKEN);
  expect(client.write(first, new Uint8Array(1), false)).toBe(STREAM_BROKEN);
  expect(network.until(() => server.streams.isReadable(first))).toBe(true);
  expect(server.streams.read(first, out)).toBe(STREAM_BROKEN);
});

test("datagrams arrive whole, up to the size foretold", () => {
  const network = new TestNetwork(7, CLEAR_NETWORK, { left: { maxUdpPayload: 1_200 } });
  const { client, server } = network.connected();
  expect(client.datagramBytesMax).toBe(1_176);
  expect(client.sendDatagram(new Uint8Array(1_177))).toBe("too large");
  expect(client.sendDatagram(new Uint8Array(1_176).fill(5))).toBe("queued");
  client.sendDatagram(new Uint8Array(0));
  network.until(() => server.datagramCount === 2);
  expect(server.takeDatagram()).toEqual(new Uint8Array(1_176).fill(5));
  expect(server.takeDatagram()).toEqual(new Uint8Array(0));
  expect(server.takeDatagram()).toBeNull();
});

test("a goodbye reaches the peer with its code and reason, and both are over soon", () => {
  const network = new TestNetwork(8);
  const { client, server } = network.connected();
  client.close(0, "shutting down", network.nowMs);
  network.until(() => server.end !== null);
  expect(server.end).toEqual({
    kind: "peer",
    isApplication: true,
    errorCode: 0,
    reason: "shutting down",
  });
  expect(network.until(() => client.phase === "closed" && server.phase === "closed", 5_000)).toBe(
    true,
  );
  expect([network.left.connections.size, network.right.connections.size]).toEqual([0, 0]);
});

test("two that say goodbye at once come to an end without many words", () => {
  const network = new TestNetwork(9);
  const { client, server } = network.connected();
  network.pass(1_000);
  let packets = 0;
  network.onPacket = () => ((packets += 1), true);
  client.close(1, "left", network.nowMs);
  server.close(2, "right", network.nowMs);
  network.until(() => client.phase === "closed" && server.phase === "closed", 5_000);
  expect(packets).toBeLessThanOrEqual(4);
});

test("a silent connection ends after the idle timeout, one that is pinged does not", () => {
  const network = new TestNetwork(10, CLEAR_NETWORK, {
    right: { parameters: { maxIdleTimeout: 2_000 } },
  });
  const { client } = network.connected();
  for (let second = 0; second < 8; second += 1) {
    network.pass(1_000);
    client.ping();
  }
  expect(client.phase).toBe("open");
  network.until(() => client.phase === "closed", 10_000);
  expect(client.end).toMatchObject({ kind: "idle" });
});

test("a client that nobody answers gives up, without having sent much", () => {
  const network = new TestNetwork(11);
  network.onPacket = () => false;
  const client = network.left.connect(network.nowMs);
  expect(network.until(() => client.phase === "closed", 60_000)).toBe(true);
  expect(client.end).toMatchObject({ kind: "idle" });
  expect(network.sentBytes.left).toBeLessThan(20_000);
});

test("a stateless reset that ends with the peer's token ends the connection, another does not", () => {
  const network = new TestNetwork(12);
  const tokens: Uint8Array[] = [];
  const { client } = network.connected();
  network.onPacket = (from, packet) => {
    if (from === "right") tokens.push(packet);
    return true;
  };
  const reset = new Uint8Array(40).fill(0x41);
  client.receive(reset, network.nowMs);
  expect(client.phase).toBe("open");
  // The first endpoint draws ids and tokens in order: the server's first token is 16 bytes after 8.
  const twin = new TestNetwork(12);
  const seen: Uint8Array[] = [];
  twin.onPacket = (from, packet) => {
    if (from === "right") seen.push(packet);
    return true;
  };
  twin.connected();
  const parameters = Buffer.from(seen[0]!).toString("hex");
  const at = parameters.indexOf("0210", parameters.indexOf("060040"));
  reset.set(hexToBytes(parameters.slice(at + 4, at + 36)), 24);
  client.receive(reset, network.nowMs);
  expect(client.end).toMatchObject({ kind: "reset" });
});

test("a list of versions without ours ends a handshake, one with ours or a stray one does not", () => {
  const network = new TestNetwork(13);
  const first: Uint8Array[] = [];
  network.onPacket = (_, packet) => (first.push(packet), false);
  const client = network.left.connect(network.nowMs);
  network.pass(0);
  const [dcid, scid] = [first[0]!.slice(6, 14), first[0]!.slice(15, 23)];
  const answer = (to: Uint8Array, from: Uint8Array, versions: string): Uint8Array =>
    Uint8Array.of(0x80, 0, 0, 0, 0, 8, ...to, 8, ...from, ...hexToBytes(versions));
  client.receive(answer(scid, dcid, "ff00001d00000001"), network.nowMs);
  client.receive(answer(scid, scid, "ff00001d"), network.nowMs);
  expect(client.phase).toBe("handshaking");
  client.receive(answer(scid, dcid, "ff00001d"), network.nowMs);
  expect(client.end).toMatchObject({ kind: "version" });
});

test("the ids of a connection lead to it while it lives, and nowhere after that", () => {
  const network = new TestNetwork(14);
  const { client, server } = network.connected();
  network.pass(1_000);
  const before = [...ids(network)];
  client.sendDatagram(new Uint8Array(1));
  network.until(() => server.datagramCount === 1);
  expect(before.every((id) => network.right.knows(id))).toBe(true);
  client.close(0, "", network.nowMs);
  network.until(() => server.phase === "closed", 5_000);
  expect(before.some((id) => network.right.knows(id))).toBe(false);
});

test("no bytes, however they are damaged, make a connection throw or take too much", () => {
  const packets: Uint8Array[] = [];
  const source = new TestNetwork(15);
  source.onPacket = (_, packet) => (packets.push(packet.slice()), true);
  const pair = source.connected();
  write(pair.client, pair.client.streams.open(1), "x".repeat(3_000));
  source.until(() => pair.server.streams.isReadable());
  const change = fc.tuple(fc.nat(), fc.nat({ max: 255 }));
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.nat({ max: packets.length - 1 }), fc.array(change, { maxLength: 5 }))
      .map(([which, changes]) => damaged(packets[which]!, changes)),
  );
  fc.assert(
    fc.property(fc.array(hostile, { maxLength: 10 }), fc.boolean(), (all, isClient) => {
      const network = new TestNetwork(15);
      const { client, server } = network.connected();
      const target = isClient ? client : server;
      for (const bytes of all) target.receive(bytes, network.nowMs);
      network.pass(500);
      expect(["open", "closing", "draining", "closed"]).toContain(target.phase);
    }),
    { numRuns: 200 },
  );
});

function* ids(network: TestNetwork): Generator<Uint8Array> {
  const seen: Uint8Array[] = [];
  const before = network.onPacket;
  network.onPacket = (from, packet) => {
    if (from === "left" && (packet[0]! & 0x80) === 0) seen.push(packet.slice(1, 9));
    return true;
  };
  for (const connection of network.left.connections) connection.ping();
  network.pass(0);
  network.onPacket = before;
  yield* seen;
}

function damaged(packet: Uint8Array, changes: readonly (readonly [number, number])[]): Uint8Array {
  const bytes = packet.slice();
  for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
  return bytes;
}

function write(connection: Connection, id: number, text: string): void {
  const bytes = new TextEncoder().encode(text);
  expect(connection.write(id, bytes, true)).toBe(bytes.length);
}

function readAll(connection: Connection, id: number): { text: string; isFin: boolean } {
  const out = new Uint8Array(100_000);
  const length = connection.streams.read(id, out);
  return {
    text: new TextDecoder().decode(out.subarray(0, length)),
    isFin: connection.streams.readIsFin,
  };
}
