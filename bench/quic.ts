/**
 * The QUIC transport against itself over loopback, both ends in one thread, on quiche with TLS and on
 * the core of our own in plaintext, in turn: request and response on a bidirectional stream, bulk at
 * several packet sizes, datagrams.
 *
 * Where `--corrosion BINARY` or `PATINA_CORROSION_BIN` names a binary of Corrosion: then also how fast
 * a write crosses between its nodes and replicas of ours (`mixed-cluster.ts`). `--only loopback` and
 * `--only cluster` measure one of the two.
 */
import type { QuicTransportOptions } from "../replica/driver/quic/options.ts";
import { createTestCertificates, openPair } from "../replica/driver/quic/transport-fixture.ts";
import type { BiStream } from "../replica/types.ts";
import {
  percentile,
  type Bench,
  type BenchContext,
  type FigureSpec,
  type Sample,
} from "./measure.ts";
import { corrosionBinary, measureMixedCluster, MIXED_FIGURES } from "./mixed-cluster.ts";

type Certificates = QuicTransportOptions["certificates"];

const ENGINES = ["quiche", "plaintext"] as const;
/** The least that is allowed, what is sent by default, the most on Ethernet, and on loopback only. */
const PACKET_BYTES = [1_200, 1_350, 1_452, 8_000] as const;

/** Figures of one connection each, then of the mixed cluster. */
export const bench: Bench = {
  about: "QUIC over loopback, on quiche and in plaintext; a write beside nodes of Corrosion",
  figures: [...ENGINES.flatMap(figuresOf), ...MIXED_FIGURES],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const only = context.flags.get("only");
  const binary = corrosionBinary(context.flags);
  if (binary === null && only !== "loopback") {
    context.note("beside Corrosion: not measured; --corrosion BINARY names one");
  }
  const quiche = await createTestCertificates();
  for (;;) {
    const sample: Record<string, number> = {};
    for (const engine of only === "cluster" ? [] : ENGINES) {
      const certificates = engine === "quiche" ? quiche : { resetSeed: "bench" };
      Object.assign(sample, await measureEngine(engine, certificates));
    }
    if (binary !== null && only !== "loopback") {
      Object.assign(sample, await measureMixedCluster(context, binary));
    }
    yield sample;
  }
}

/** Targets are for the core of our own. */
function figuresOf(engine: (typeof ENGINES)[number]): FigureSpec[] {
  const aim = (target: NonNullable<FigureSpec["target"]>): Pick<FigureSpec, "target"> =>
    engine === "plaintext" ? { target } : {};
  return [
    { name: `${engine}: request p50`, unit: "ms", ...aim({ atMost: 0.3 }) },
    { name: `${engine}: request p99`, unit: "ms" },
    ...PACKET_BYTES.map((bytes) => ({
      name: `${engine}: bulk at ${bytes}`,
      unit: "MB/s",
      ...(bytes === 1_350 ? aim({ atLeast: 30 }) : {}),
    })),
    { name: `${engine}: datagrams received`, unit: "k/s", ...aim({ atLeast: 40 }) },
    { name: `${engine}: share received`, unit: "%" },
  ];
}

async function measureEngine(engine: string, certificates: Certificates): Promise<Sample> {
  const sample: Record<string, number> = {};
  const put = (figures: Sample): void => {
    for (const [name, value] of Object.entries(figures)) sample[`${engine}: ${name}`] = value;
  };
  put(await measureRequests(certificates));
  for (const bytes of PACKET_BYTES)
    put({ [`bulk at ${bytes}`]: await measureBulk(certificates, bytes) });
  put(await measureDatagrams(certificates));
  return sample;
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
