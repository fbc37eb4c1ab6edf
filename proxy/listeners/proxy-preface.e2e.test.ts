/** PROXY protocol on real sockets, before plain HTTP and before TLS. */
import { once } from "node:events";
import { connect } from "node:net";
import { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { TestCertificates } from "../testing/test-certificates.ts";
import { TestClient } from "../testing/test-client.ts";
import type { TestProxy } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";
import { ProcessLimits } from "./core/process-limits.ts";
import { createHttpListener, type HttpListener } from "./http-listener.ts";
import { TlsCertificates } from "./tls-certificates.ts";

const REQUEST = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const stack = new TestStack();
let certificates: TestCertificates;

beforeAll(async () => {
  certificates = await TestCertificates.create();
});

afterAll(() => certificates.remove());
afterEach(() => stack.close());

test.each([
  ["a line", "PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\n", "192.0.2.7"],
  ["a line that names nobody", "PROXY UNKNOWN\r\n", "127.0.0.1"],
  [
    "a binary header",
    "\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x08\x0a\x00\x00\x01\x00\x05\x00\x50",
    "192.0.2.8",
  ],
])("%s says whose the requests are, whole or in pieces", async (_name, header, address) => {
  const { listener, proxy } = await start();
  for (const cut of [0, 5, header.length]) {
    const client = await stack.client({ port: listener.address.port });
    const bytes = Buffer.from(header + REQUEST, "latin1");
    client.write(bytes.subarray(0, cut));
    if (cut > 0) await proxy.turn();
    client.write(bytes.subarray(cut));
    expect((await client.response()).body).toBe(address);
    client.write(REQUEST);
    expect((await client.response()).body).toBe(address);
  }
  expect(new Set(proxy.finished.map(({ clientAddress }) => clientAddress))).toEqual(
    new Set([address]),
  );
});

test.each([true, false])(
  "a header before TLS counts too, in one write with it: %s",
  async (isOne) => {
    const { listener, proxy } = await start({ isTls: true });
    const raw = connect({ port: listener.address.port, host: "127.0.0.1" });
    stack.defer(() => void raw.destroy());
    let header = Buffer.from("PROXY TCP6 2001:db8::5 ::1 5 443\r\n");
    if (!isOne) {
      raw.write(header);
      header = Buffer.alloc(0);
      await once(raw, "connect");
      await proxy.turn();
    }
    const joined = new Duplex({
      read: () => undefined,
      write: (bytes: Buffer, _encoding, done) => {
        raw.write(Buffer.concat([header, bytes]), done);
        header = Buffer.alloc(0);
      },
    });
    raw.on("data", (bytes) => joined.push(bytes));
    const socket = connectTls({
      socket: joined,
      ca: certificates.authority,
      checkServerIdentity: () => undefined,
    });
    stack.defer(() => void socket.destroy());
    await once(socket, "secureConnect");
    const client = new TestClient(socket);
    client.write(REQUEST);
    expect((await client.response()).body).toBe("2001:db8::5");
  },
);

test.each([
  ["a connection that begins with something else", REQUEST],
  ["a header that is wrong", "PROXY TCP4 nobody 10.0.0.1 5 80\r\n"],
])("%s is closed and counted", async (_name, bytes) => {
  const { listener, refused } = await start();
  const client = await stack.client({ port: listener.address.port });
  client.write(bytes);
  await refused;
  expect((await client.ended()).length).toBe(0);
});

test("a header that does not come is not waited for", async () => {
  const { listener, refused } = await start({ limitMs: 10 });
  const client = await stack.client({ port: listener.address.port });
  client.write("PROXY TC");
  await refused;
  await client.ended();
});

test("a header from a peer that is not listed is no HTTP", async () => {
  const { listener } = await start({ isListed: false });
  const client = await stack.client({ port: listener.address.port });
  client.write(`PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\n${REQUEST}`);
  expect((await client.response()).status).toBe(400);
});

test("connections are counted by the client that is named, not by the balancer", async () => {
  const { listener } = await start({ connectionsMax: 1 });
  const ask = async (address: string): Promise<number> => {
    const client = await stack.client({ port: listener.address.port });
    client.write(`PROXY TCP4 ${address} 10.0.0.1 5 80\r\n${REQUEST}`);
    return (await client.response()).status;
  };
  expect(await ask("192.0.2.1")).toBe(200);
  expect(await ask("192.0.2.2")).toBe(200);
  expect(await ask("192.0.2.1")).toBe(503);
});

interface Started {
  readonly proxy: TestProxy;
  readonly listener: HttpListener;
  /** Resolves when a connection was refused for its header. */
  readonly refused: Promise<void>;
}

async function start(
  options: {
    isListed?: boolean;
    isTls?: boolean;
    limitMs?: number;
    connectionsMax?: number;
  } = {},
): Promise<Started> {
  const { isListed = true, isTls = false, limitMs = 10_000, connectionsMax = 0 } = options;
  const port = await stack.http((request, response) => {
    response.end(request.headers["x-forwarded-for"]);
  });
  const proxy = await stack.proxy({ ports: [port] });
  const refused = Promise.withResolvers<void>();
  const pairs = isTls ? [await certificates.write("a.test", ["a.test"])] : [];
  const tls = isTls && {
    certificates: new TlsCertificates(pairs, "TLSv1.2"),
    minVersion: "TLSv1.2" as const,
    handshakeMs: 10_000,
    log: createLogger({ level: "error", nowMs: () => 0, write: () => undefined }),
    observer: {
      handshakeDone: () => undefined,
      handshakeFailed: () => undefined,
      reloadFailed: () => undefined,
      expiryKnown: () => undefined,
    },
  };
  const listener = await createHttpListener({
    engine: proxy.engine,
    source: { host: "127.0.0.1", port: 0 },
    preface: { isFrom: () => isListed, limitMs, onRefused: () => refused.resolve() },
    admission: {
      limits: new ProcessLimits(ProcessLimits.allocate([1, 2]), {
        connections: 100,
        connectionsPerClient: connectionsMax,
        waiting: 0,
        keptBodies: 0,
      }),
      isExempt: () => false,
      onRefused: () => undefined,
      viaName: "me",
    },
    ...(tls ? { tls } : {}),
  });
  stack.defer(() => listener.close());
  return { proxy, listener, refused: refused.promise };
}
