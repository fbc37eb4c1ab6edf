/**
 * The QUIC transport against itself over loopback, both ends in one thread, on quiche with TLS and on
 * the core of our own in plaintext, in turn: request and response on a bidirectional stream, bulk at
 * two packet sizes, datagrams.
 */
import type { QuicTransportOptions } from "../replica/driver/quic/options.ts";
import { createTestCertificates, openPair } from "../replica/driver/quic/transport-fixture.ts";
import type { BiStream } from "../replica/types.ts";
import { percentile, type Bench, type Sample } from "./measure.ts";

type Certificates = QuicTransportOptions["certificates"];

const ENGINES = ["quiche", "plaintext"] as const;

/** Figures of one connection each. */
export const bench: Bench = {
  about:
    "QUIC over loopback in one thread, on quiche and in plaintext: round trips, bulk, datagrams",
  figures: ENGINES.flatMap((engine) => [
    { name: `${engine}: request p50`, unit: "ms" },
    { name: `${engine}: request p99`, unit: "ms" },
    { name: `${engine}: bulk at 1350`, unit: "MB/s" },
    { name: `${engine}: bulk at 8000`, unit: "MB/s" },
    { name: `${engine}: datagrams received`, unit: "k/s" },
    { name: `${engine}: share received`, unit: "%" },
  ]),
  run,
};

async function* run(): AsyncIterable<Sample> {
  const quiche = await createTestCertificates();
  for (;;) {
    const sample: Record<string, number> = {};
    for (const engine of ENGINES) {
      const certificates = engine === "quiche" ? quiche : { resetSeed: "bench" };
      const figures = {
        ...(await measureRequests(certificates)),
        "bulk at 1350": await measureBulk(certificates, 1_350),
        "bulk at 8000": await measureBulk(certificates, 8_000),
        ...(await measureDatagrams(certificates)),
      };
      for (const [name, value] of Object.entries(figures)) sample[`${engine}: ${name}`] = value;
    }
    yield sample;
  }
}

async function measureRequests(certificates: Certificates): Promise<Sample> {
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
  return {
    "request p50": percentile(timesMs, 0.5),
    "request p99": percentile(timesMs, 0.99),
  };
}

/** Megabytes per second at packets of `maxUdpPayload` bytes. */
async function measureBulk(certificates: Certificates, maxUdpPayload: number): Promise<number> {
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
  return BULK_BYTES / 1_000 / (performance.now() - startMs);
}

async function measureDatagrams(certificates: Certificates): Promise<Sample> {
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
  return {
    "datagrams received": received / (performance.now() - startMs),
    "share received": (100 * received) / DATAGRAMS,
  };
}

function echo(stream: BiStream, frame: Uint8Array | null): Promise<void> | void {
  return frame === null ? stream.finish() : stream.send(frame);
}

const REQUESTS = 5_000;
const BULK_BYTES = 100_000_000;
const DATAGRAMS = 200_000;
