import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { expect, test } from "vitest";
import { PlaintextProtection } from "../../core/quic/protection.ts";
import { createTestCertificates, openEndpoint, type Endpoint } from "./transport-fixture.ts";

const certificates = await createTestCertificates();
/** Quiche with TLS, and the core of our own. */
const MODES = [
  ["with TLS", certificates],
  ["in plaintext", { resetSeed: "end to end" }],
] as const;
/** `PATINA_QUIC_HANDSHAKES=100000` takes some 8 s of CPU. */
const HANDSHAKES = Number(process.env["PATINA_QUIC_HANDSHAKES"] ?? 10_000);

test.each(MODES)("random bytes are counted and change nothing, %s", async (_, mode) => {
  await using left = await openEndpoint({ certificates: mode });
  await using right = await openEndpoint({ certificates: mode });
  await using attacker = await openSocket();
  const packets = fc.sample(hostilePacket(), { numRuns: 400, seed: 7 });
  const { stats } = right.transport;
  for (const packet of packets) {
    const before = stats.packetsReceived;
    attacker.send(packet, right);
    await everyTurn(() => stats.packetsReceived > before);
  }
  const counted =
    stats.packetsMalformed + stats.packetsUnknown + stats.packetsRefused + stats.handshakesFailed;
  expect(counted).toBeGreaterThanOrEqual(packets.length);
  expect(stats.handshakesAccepted).toBe(0);
  await everyTurn(() => right.transport.connectionCount === 0);
  expect(await left.transport.sendUni(right.transport.local, [Buffer.from("x")])).toBe(true);
  await right.events.until(() => right.events.unis.length === 1);
});

test("a flood of 50,000 datagrams costs no connection, no message and no memory", async () => {
  // Method: another thread sends as fast as the system lets it, while messages go their way.
  await using left = await openEndpoint({ certificates });
  await using right = await openEndpoint({ certificates });
  const send = (): Promise<boolean> =>
    left.transport.sendUni(right.transport.local, [Buffer.from("through the flood")]);
  expect(await send()).toBe(true);
  const { stats } = right.transport;
  const counted = (): number =>
    stats.packetsMalformed + stats.packetsUnknown + stats.packetsRefused + stats.handshakesFailed;
  const packets = fc.sample(hostilePacket(), { numRuns: 200, seed: 8 });
  const before = process.memoryUsage().rss;
  const flood = new Worker(FLOOD, {
    eval: true,
    workerData: { packets, count: 50_000, port: portOf(right) },
  });
  const end = once(flood, "exit");
  await everyTurn(() => counted() > 1_000);
  let sent = 1;
  for (; sent <= 20; sent += 1) expect(await send()).toBe(true);
  await end;
  await right.events.until(() => right.events.unis.length === sent);
  await everyTurn(() => right.transport.connectionCount === 1);
  expect(stats.handshakesAccepted).toBe(1);
  expect(left.events.edges.filter(({ state }) => state === "down")).toEqual([]);
  expect(process.memoryUsage().rss - before).toBeLessThan(128 * 1024 * 1024);
});

test(`of ${HANDSHAKES} handshakes that never finish, a bounded number is held at a time`, async () => {
  // Method: first packets in plaintext, each for a connection of its own, whose sender never answers.
  const plaintext = { certificates: { resetSeed: "flooded" }, connectTimeoutMs: 100 };
  const limits = { inboundHandshakesMax: 64 };
  await using right = await openEndpoint({ ...plaintext, limits });
  await using attacker = await openSocket();
  const { stats } = right.transport;
  const firstPacket = createFirstPackets();
  const before = process.memoryUsage().rss;
  let mostHeld = 0;
  // Those that the system dropped are made up for.
  while (stats.packetsReceived < HANDSHAKES) {
    for (let sent = 0; sent < 200; sent += 1) attacker.send(firstPacket(), right);
    await new Promise((resolve) => setImmediate(resolve));
    mostHeld = Math.max(mostHeld, right.transport.connectionCount);
  }
  // An attempt that was given up lingers for one turn.
  expect(mostHeld).toBeLessThanOrEqual(2 * limits.inboundHandshakesMax);
  await everyTurn(() => right.transport.connectionCount === 0);
  expect(stats.handshakesAccepted).toBe(0);
  expect(stats.connectionsRefused).toBeGreaterThan(0);
  expect(stats.connectionsRefused + stats.handshakesFailed).toBe(stats.packetsReceived);
  expect(stats.bytesSent).toBeLessThanOrEqual(3 * 1_200 * stats.handshakesFailed);
  expect(process.memoryUsage().rss - before).toBeLessThan(128 * 1024 * 1024);
  await using left = await openEndpoint({ certificates: plaintext.certificates });
  expect(await left.transport.sendUni(right.transport.local, [Buffer.from("x")])).toBe(true);
  await right.events.until(() => right.events.unis.length === 1);
});

test.each(MODES)("packets damaged on the way are as good as lost, %s", async (_, mode) => {
  // Method: a relay between the two flips one bit in every seventh packet.
  await using right = await openEndpoint({ certificates: mode });
  await using left = await openEndpoint({ certificates: mode });
  await using relay = await openRelay(right, left);
  const frame = Buffer.alloc(200_000, 9);
  const sends = [1, 2, 3].map(() => left.transport.sendUni(relay.address, [frame]));
  expect(await Promise.all(sends)).toEqual([true, true, true]);
  await right.events.until(() => right.events.unis.length === 3);
  for (const { frames } of right.events.unis) {
    expect(Buffer.from(frames[0] ?? []).equals(frame)).toBe(true);
  }
  expect(relay.damaged()).toBeGreaterThan(10);
});

test("an unknown version is answered with ours if it could start a connection", async () => {
  await using right = await openEndpoint({ certificates });
  await using attacker = await openSocket();
  const packet = Buffer.alloc(1_200);
  packet.set(Buffer.from("c0ff00001d08a1a2a3a4a5a6a7a802b1b2", "hex"));
  attacker.send(packet.subarray(0, 1_199), right);
  attacker.send(packet, right);
  const reply = await attacker.next();
  expect(reply.subarray(1).toString("hex")).toBe("0000000002b1b208a1a2a3a4a5a6a7a800000001");
  expect(right.transport.stats).toMatchObject({ packetsUnknown: 2, versionNegotiationsSent: 1 });
});

test("replies to strangers are smaller than the question and limited in number", async () => {
  const limits = { statelessRepliesPerSecond: 3 };
  await using right = await openEndpoint({ certificates, limits });
  await using attacker = await openSocket();
  const question = Buffer.alloc(40, 0x41);
  for (let sent = 0; sent < 20; sent += 1) attacker.send(question, right);
  expect((await attacker.next()).length).toBe(39);
  const { stats } = right.transport;
  await everyTurn(() => stats.packetsReceived === 20);
  expect(stats.statelessResetsSent + stats.statelessRepliesHeldBack).toBe(20);
  expect(stats.statelessRepliesHeldBack).toBeGreaterThan(0);
});

test.each(MODES)(
  "handshakes beyond the limit are refused without harm to those that are there, %s",
  async (_, mode) => {
    const limits = { inboundConnectionsMax: 1 };
    await using right = await openEndpoint({ certificates: mode, limits });
    await using first = await openEndpoint({ certificates: mode });
    await using second = await openEndpoint({ certificates: mode, connectTimeoutMs: 300 });
    const target = right.transport.local;
    expect(await first.transport.sendUni(target, [Buffer.from("1")])).toBe(true);
    await right.events.until(() => right.events.unis.length === 1);
    expect(await second.transport.sendUni(target, [Buffer.from("2")])).toBe(false);
    expect(right.transport.stats.connectionsRefused).toBeGreaterThan(0);
    expect(await first.transport.sendUni(target, [Buffer.from("3")])).toBe(true);
    await right.events.until(() => right.events.unis.length === 2);
  },
);

/** Bytes from pure noise to nearly a first packet. */
function hostilePacket(): fc.Arbitrary<Buffer> {
  const noise = fc.uint8Array({ maxLength: 1_400 });
  const sized = fc.uint8Array({ minLength: 1_200, maxLength: 1_400 });
  const prefixed = (prefix: string) => (bytes: Uint8Array) =>
    Buffer.concat([Buffer.from(prefix, "hex"), bytes]);
  return fc.oneof(
    noise.map((bytes) => Buffer.from(bytes)),
    noise.map(prefixed("c000000001")),
    sized.map(prefixed("c00000000108a1a2a3a4a5a6a7a800004496")),
    sized.map(prefixed("e00000000108a1a2a3a4a5a6a7a800")),
    noise.map(prefixed("40a1a2a3a4a5a6a7a8")),
  );
}

/** Makes a client's first packets, each under ids of its own. */
function createFirstPackets(): () => Buffer {
  const protection = new PlaintextProtection();
  let made = 0;
  return () => {
    made += 1;
    const packet = Buffer.alloc(1_200);
    // Ids of 8 bytes, no token, number 0, a PING.
    packet.set(Buffer.from("c0000000010800000000000000000800000000000000000044960001", "hex"));
    packet.writeUInt32BE(made, 6);
    packet.writeUInt32BE(made, 15);
    protection.seal(packet, { start: 0, numberStart: 26, numberBytes: 1, end: packet.length });
    return packet;
  };
}

interface RawSocket extends AsyncDisposable {
  send(packet: Buffer, target: Endpoint): void;
  next(): Promise<Buffer>;
}

async function openSocket(): Promise<RawSocket> {
  const socket = await bound();
  const received: Buffer[] = [];
  socket.on("message", (packet) => received.push(packet));
  return {
    send: (packet, target) => socket.send(packet, portOf(target), "127.0.0.1"),
    async next() {
      await everyTurn(() => received.length > 0);
      return received.shift() ?? Buffer.alloc(0);
    },
    [Symbol.asyncDispose]: async () => void socket.close(),
  };
}

async function openRelay(server: Endpoint, client: Endpoint) {
  const socket = await bound();
  let seen = 0;
  let damaged = 0;
  socket.on("message", (packet, source) => {
    seen += 1;
    if (seen % 7 === 0) {
      const at = (seen * 31) % packet.length;
      packet[at] = (packet[at] ?? 0) ^ (1 << (seen % 8));
      damaged += 1;
    }
    const target = source.port === portOf(server) ? client : server;
    socket.send(packet, portOf(target), "127.0.0.1");
  });
  return {
    address: `127.0.0.1:${socket.address().port}`,
    damaged: () => damaged,
    [Symbol.asyncDispose]: async () => void socket.close(),
  };
}

/** Sends packets in turn, some hundred at a time on their way into the system. */
const FLOOD = `
  const { createSocket } = require("node:dgram");
  const { packets, count, port } = require("node:worker_threads").workerData;
  const socket = createSocket("udp4");
  let begun = 0;
  let ended = 0;
  function next() {
    if (begun === count) return;
    const packet = packets[begun % packets.length];
    begun += 1;
    socket.send(packet, port, "127.0.0.1", () => {
      ended += 1;
      if (ended === count) socket.close();
      else next();
    });
  }
  for (let at = 0; at < 200; at += 1) next();
`;

async function bound(): Promise<Socket> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return socket;
}

function portOf(endpoint: Endpoint): number {
  return Number(endpoint.transport.local.split(":").at(-1));
}

async function everyTurn(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}
