/**
 * Measures the transport against itself over loopback, both ends in one thread: request and
 * response on a bidirectional stream, bulk at two packet sizes, datagrams. Run it with the pinned
 * Node; prints one line per figure.
 */
import type { BiStream } from "../../types.ts";
import { createTestCertificates, openPair } from "./transport-fixture.ts";

const REQUESTS = 5_000;
const BULK_BYTES = 200_000_000;
const DATAGRAMS = 200_000;

const certificates = await createTestCertificates();
await measureRequests();
await measureBulk(1_350);
await measureBulk(8_000);
await measureDatagrams();

async function measureRequests(): Promise<void> {
  await using pair = await openPair({ certificates });
  pair.right.onBiStream((stream) => stream.onFrame((frame) => echo(stream, frame)));
  const stream = await pair.left.transport.openBi(pair.right.transport.local);
  let answered = (): void => {};
  stream.onFrame(() => answered());
  const timesMs: number[] = [];
  for (let at = 0; at < REQUESTS; at += 1) {
    const startMs = performance.now();
    const done = new Promise<void>((resolve) => (answered = resolve));
    await stream.send(Buffer.alloc(100));
    await done;
    timesMs.push(performance.now() - startMs);
  }
  timesMs.sort((first, second) => first - second);
  const at = (share: number): string => (timesMs[Math.floor(share * REQUESTS)] ?? 0).toFixed(3);
  process.stdout.write(`request/response p50 ${at(0.5)} ms, p99 ${at(0.99)} ms\n`);
}

async function measureBulk(maxUdpPayload: number): Promise<void> {
  await using pair = await openPair({ certificates, options: { maxUdpPayload } });
  const received = new Promise<void>((resolve) => {
    pair.right.onBiStream((stream) =>
      stream.onFrame((frame) => (frame === null ? resolve() : undefined)),
    );
  });
  const stream = await pair.left.transport.openBi(pair.right.transport.local);
  const frame = Buffer.alloc(100_000, 7);
  const startMs = performance.now();
  for (let sent = 0; sent < BULK_BYTES; sent += frame.length) await stream.send(frame);
  stream.finish();
  await received;
  const seconds = (performance.now() - startMs) / 1_000;
  const rate = (BULK_BYTES / 1_000_000 / seconds).toFixed(0);
  process.stdout.write(`bulk at ${maxUdpPayload} bytes per packet: ${rate} MB/s\n`);
}

async function measureDatagrams(): Promise<void> {
  await using pair = await openPair({ certificates });
  const { left, right } = pair;
  let received = 0;
  right.onDatagram(() => (received += 1));
  left.transport.sendDatagram(right.transport.local, Buffer.alloc(1));
  await right.events.until(() => received > 0);
  const startMs = performance.now();
  for (let sent = 0; sent < DATAGRAMS;) {
    for (let burst = 0; burst < 50; burst += 1, sent += 1) {
      left.transport.sendDatagram(right.transport.local, Buffer.alloc(200));
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (let idle = 0; idle < 200; idle += 1) await new Promise((resolve) => setImmediate(resolve));
  const seconds = (performance.now() - startMs) / 1_000;
  const share = ((100 * received) / DATAGRAMS).toFixed(1);
  const rate = (received / seconds / 1_000).toFixed(0);
  process.stdout.write(`datagrams: ${rate} k/s received (${share} % of those sent)\n`);
}

function echo(stream: BiStream, frame: Uint8Array | null): Promise<void> | void {
  return frame === null ? stream.finish() : stream.send(frame);
}
