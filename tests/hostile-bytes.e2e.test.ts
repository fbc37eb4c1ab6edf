/**
 * Bytes that are no message of any kind, at every port of a running edge: they are counted and
 * dropped, no process ends, and the next well-meant request is answered.
 */
import { createSocket } from "node:dgram";
import { connect } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { get, until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";

let cluster: Cluster;
let edge: TestHost;
let pid: number;

beforeAll(async () => {
  cluster = await Cluster.create([{ name: "edge", kind: "edge" }]);
  edge = cluster.host("edge");
  await cluster.start("edge");
  pid = edge.edgePid();
  const machine = await cluster.startMachine("one");
  await edge.api("PUT", "/v1/hostnames/one.test", { app: "one" });
  await edge.api("PUT", "/v1/machines/one", machine.document("one"));
  await edge.routes("one.test", "one");
});

afterAll(async () => {
  await cluster.close();
});

describe("after hostile bytes", () => {
  beforeEach(() => {
    expect(edge.edgePid()).toBe(pid);
  });

  test.each(["http", "api", "metrics"] as const)("on %s every port still answers", async (name) => {
    const port = { http: edge.httpPort, api: edge.ports.api, metrics: edge.metricsPort }[name];
    await Promise.all(hostileStreams().map((bytes) => throwAt(port, bytes)));
    await expectWell();
  });

  test("on gossip every port still answers, and the packets are counted", async () => {
    const before = await edge.metric("patina_quic_received_bytes_total");
    const socket = createSocket("udp4");
    const sends = hostilePackets().map((bytes) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      socket.send(bytes, edge.ports.gossip, "127.0.0.1", () => resolve());
      return promise;
    });
    await Promise.all(sends);
    socket.close();
    await until("the packets have come in", async () => {
      return (await edge.metric("patina_quic_received_bytes_total")) > before;
    });
    await expectWell();
  });

  test("refusals of HTTP are counted", async () => {
    expect(await edge.metric('patina_http_refusals_total{side="client"}')).toBeGreaterThan(0);
  });

  test("in API bodies nothing is written, and the answer says where", async () => {
    const before = (await edge.status()).heads;
    for (const body of HOSTILE_DOCUMENTS) {
      const { status, text } = await edge.api("PUT", "/v1/machines/hostile", body);
      expect({ body, status }).toEqual({ body, status: 422 });
      expect((JSON.parse(text) as { places: string[] }).places).not.toEqual([]);
    }
    for (const body of HOSTILE_STATEMENTS) {
      const { status } = await edge.api("POST", "/v1/transactions", body);
      expect({ body, status: Math.floor(status / 100) }).not.toEqual({ body, status: 2 });
    }
    expect((await edge.status()).heads).toEqual(before);
    await expectWell();
  });
});

async function expectWell(): Promise<void> {
  expect(edge.edgePid()).toBe(pid);
  expect((await edge.request("one.test")).text).toBe("one");
  expect((await edge.api("GET", "/v1/status")).status).toBe(200);
  expect((await get(edge.metricsPort, "/readyz")).status).toBe(200);
  expect(edge.log.filter(({ level }) => level === "error")).toEqual([]);
}

/** Opens a connection, sends everything, and waits until the other side has closed it. */
async function throwAt(port: number, bytes: Uint8Array): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = connect(port, "127.0.0.1", () => socket.end(bytes));
  socket.on("error", () => resolve());
  socket.on("close", () => resolve());
  socket.resume();
  await promise;
}

function hostileStreams(): Uint8Array[] {
  const texts = [
    "",
    "\r\n\r\n\r\n",
    "GET",
    "GET / HTTP/9.9\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET http://[::1 HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "GET /%ff%zz//../..//\u0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "POST /v1/transactions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nConnection: close\r\n\r\n[[[[[[[[[",
    "PUT /v1/machines/%ff HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003",
    `GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(100_000)}\r\n\r\n`,
    `GET /${"a/".repeat(50_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
    `GET / HTTP/1.1\r\nHost: a\r\n${"A: b\r\n".repeat(5_000)}\r\n`,
  ];
  return [...texts.map((text) => Buffer.from(text, "latin1")), ...noise(40, 3_000)];
}

function hostilePackets(): Uint8Array[] {
  // The first byte decides how QUIC reads the rest: long header, short header, version negotiation.
  const headed = noise(100, 1_200).map((bytes, index) => {
    bytes[0] = [0xc0, 0x40, 0x80, 0xff][index % 4] ?? 0;
    if (index % 3 === 0) bytes.set([0, 0, 0, 1], 1);
    return bytes;
  });
  return [Buffer.alloc(0), Buffer.alloc(1), Buffer.alloc(1_200), ...headed, ...noise(50, 60_000)];
}

/** The same bytes in every run. */
function noise(count: number, bytesMax: number): Uint8Array[] {
  const prng = createPrng(20_261_123);
  return Array.from({ length: count }, () => {
    const length = 10 + Math.floor(prng.next() * (bytesMax - 10));
    return Uint8Array.from({ length }, () => Math.floor(prng.next() * 256));
  });
}

const HOSTILE_DOCUMENTS: readonly unknown[] = [
  null,
  [],
  "text",
  {},
  { app: "a", state: "started", services: [{ name: "web", address: "example.org:80" }] },
  { app: "a".repeat(10_000), state: "started" },
  { app: "a", state: "started", services: "none" },
  { app: "a\u0000", state: "started" },
];
const HOSTILE_STATEMENTS: readonly unknown[] = [
  null,
  {},
  [],
  [{ query: 1 }],
  ["DROP TABLE machines"],
  ["PRAGMA journal_mode = DELETE"],
  ["ATTACH '/tmp/x.db' AS x"],
  ["SELECT load_extension('x')"],
  ["INSERT INTO machines (id) VALUES (?)"],
  ["DELETE FROM crsql_site_id"],
  ["UPDATE __patina_state SET value = 'x'"],
];
