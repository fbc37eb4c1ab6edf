/**
 * HTTPS on real sockets, with Node's TLS client: which certificate whom is shown, what a changed
 * file does to connections old and new, and what goes over them.
 */
import { once } from "node:events";
import { rmSync } from "node:fs";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createLogger, type LogFields } from "#base/logger.ts";
import { TestCertificates } from "../testing/test-certificates.ts";
import { TestClient } from "../testing/test-client.ts";
import type { TestProxy } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";
import { createHttpListener, type HttpListener } from "./http-listener.ts";
import { TlsCertificates, type CertificateFiles } from "./tls-certificates.ts";

const stack = new TestStack();
let certificates: TestCertificates;

beforeAll(async () => {
  certificates = await TestCertificates.create();
});

afterAll(() => certificates.remove());
afterEach(() => stack.close());

test.each([
  ["shop.test", "shop.test"],
  ["SHOP.test", "shop.test"],
  ["a.wild.test", "*.wild.test"],
  ["a.b.wild.test", "first.test"],
  ["unknown.test", "first.test"],
  [undefined, "first.test"],
])("a client that asks for %s is shown the certificate of %s", async (servername, shown) => {
  const edge = await start({ names: ["first.test", "shop.test", "*.wild.test"] });
  const socket = await secure(edge, { servername, checkServerIdentity: () => undefined });
  expect(socket.getPeerCertificate().subjectaltname).toBe(`DNS:${shown}`);
});

test.each(["TLSv1.2", "TLSv1.3"] as const)("%s carries requests", async (version) => {
  const edge = await start({ names: ["a.test"] });
  const socket = await secure(edge, { minVersion: version, maxVersion: version });
  expect(socket.getProtocol()).toBe(version);
  expect(socket.alpnProtocol).toBe("http/1.1");
  const client = new TestClient(socket);
  for (let index = 0; index < 3; index += 1) {
    client.write("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    const response = await client.response();
    const seen = JSON.parse(response.body);
    expect(seen["x-forwarded-proto"]).toBe("https");
    expect(seen["x-forwarded-port"]).toBe(String(edge.listener.address.port));
    expect(response.headers.get("strict-transport-security")).toBe("max-age=60");
  }
  expect(edge.proxy.engine.pool.stats.dialled).toBe(1);
});

test("a client with an older version than allowed is refused and counted", async () => {
  const edge = await start({ names: ["a.test"], minVersion: "TLSv1.3" });
  await expect(secure(edge, { maxVersion: "TLSv1.2" })).rejects.toThrow(/alert|version/i);
  await edge.happened("failed");
});

test("plain HTTP on the HTTPS port is closed and counted", async () => {
  const edge = await start({ names: ["a.test"] });
  const client = await stack.client({ port: edge.listener.address.port });
  client.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
  await edge.happened("failed");
  expect(edge.proxy.engine.connectionCount).toBe(0);
});

test.each(["TLSv1.2", "TLSv1.3"] as const)(
  "a %s session is resumed on another thread's listener, by the shared ticket key",
  async (version) => {
    const ticketKeys = new Uint8Array(48).fill(7);
    const one = await start({ names: ["a.test"], ticketKeys });
    const two = await start({ names: ["a.test"], ticketKeys });
    const three = await start({ names: ["a.test"] });
    const session = await sessionFrom(one, version);
    expect((await secure(two, { session, maxVersion: version })).isSessionReused()).toBe(true);
    await two.happened("resumed");
    expect((await secure(three, { session, maxVersion: version })).isSessionReused()).toBe(false);
  },
);

test("a renewed certificate is shown to new clients, and old connections go on", async () => {
  const edge = await start({ names: ["one.test", "two.test"] });
  const old = await secure(edge, { servername: "two.test" });
  const before = old.getPeerCertificate().serialNumber;
  const firstBefore = (await secure(edge, {})).getPeerCertificate().serialNumber;
  await certificates.write("two.test", ["two.test"]);
  await certificates.write("one.test", ["one.test"]);
  edge.listener.refreshCertificates();
  const after = await secure(edge, { servername: "two.test" });
  expect(after.getPeerCertificate().serialNumber).not.toBe(before);
  const nameless = await secure(edge, {});
  expect(nameless.getPeerCertificate().serialNumber).not.toBe(firstBefore);
  const client = new TestClient(old);
  client.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
  expect((await client.response()).status).toBe(200);
});

test("a certificate without its new key is not taken until the key is there", async () => {
  const edge = await start({ names: ["one.test"] });
  const before = (await secure(edge, {})).getPeerCertificate().serialNumber;
  const renewed = await certificates.issue(["one.test"]);
  const files = certificates.files("one.test");
  certificates.replace(files.cert_file, renewed.certificatePem);
  edge.listener.refreshCertificates();
  edge.listener.refreshCertificates();
  expect((await secure(edge, {})).getPeerCertificate().serialNumber).toBe(before);
  expect(edge.events).toEqual(["reload-failed"]);
  certificates.replace(files.key_file, renewed.keyPem);
  edge.listener.refreshCertificates();
  expect((await secure(edge, {})).getPeerCertificate().serialNumber).not.toBe(before);
  rmSync(files.key_file);
  edge.listener.refreshCertificates();
  expect(edge.events).toEqual(["reload-failed", "reload-failed"]);
  expect((await secure(edge, {})).authorized).toBe(true);
});

test("a certificate that expires within two weeks is warned of, once a day", async () => {
  const edge = await start({ names: ["a.test"], validityDays: 10 });
  edge.listener.refreshCertificates();
  expect(edge.logged.filter(({ event }) => event === "certificate-expires")).toMatchObject([
    { level: "warn", daysLeft: 9 },
  ]);
  expect(edge.expiresAtMs() / 86_400_000 - Date.now() / 86_400_000).toBeCloseTo(10, 1);
});

test("a listener does not start with a certificate that does not fit its key", async () => {
  const one = await certificates.write("one.test", ["one.test"]);
  const two = await certificates.write("two.test", ["two.test"]);
  const mixed = { cert_file: one.cert_file, key_file: two.key_file };
  expect(() => new TlsCertificates([mixed], "TLSv1.2")).toThrow(
    expect.objectContaining({ code: "CERTIFICATE_UNREADABLE" }),
  );
});

test("bodies of megabytes pass both ways unchanged, and a broken one does not look whole", async () => {
  const edge = await start({ names: ["a.test"] });
  const client = new TestClient(await secure(edge, {}));
  const body = Buffer.alloc(3_000_000, "0123456789abcdef");
  client.write(`PUT /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: ${body.length}\r\n\r\n`);
  client.write(body);
  expect((await client.response()).bytes.equals(body)).toBe(true);
  const socket = await secure(edge, {});
  const other = new TestClient(socket);
  other.write("GET /cut HTTP/1.1\r\nHost: a.test\r\n\r\n");
  await other.until("part");
  if (!socket.closed) await once(socket, "close");
  expect(edge.proxy.finished.at(-1)?.errorCode).toBe("UPSTREAM_RESET");
});

test("a handshake that does not come to an end is given up", async () => {
  const edge = await start({ names: ["a.test"], handshakeMs: 20 });
  const client = await stack.client({ port: edge.listener.address.port });
  client.write("\x16\x03\x01");
  await edge.happened("failed");
  await client.ended();
});

test("a drain lets the request in flight finish and leaves no socket open", async () => {
  const edge = await start({ names: ["a.test"] });
  const busy = new TestClient(await secure(edge, {}));
  const pending = await stack.client({ port: edge.listener.address.port });
  pending.write("\x16\x03\x01");
  busy.write("PUT /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n12");
  await edge.proxy.nextProgress();
  const drained = edge.listener.drain(30_000);
  busy.write("34");
  const response = await busy.response();
  expect(response.body).toBe("1234");
  expect(response.headers.get("connection")).toBe("close");
  busy.socket.end();
  expect(await drained).toBe(0);
});

test("plain requests are sent on to HTTPS, except those of a certificate authority", async () => {
  const port = await stack.http((_request, response) => response.end("served"));
  const proxy = await stack.proxy({ ports: [port] });
  const listener = await createHttpListener({
    engine: proxy.engine,
    source: { host: "127.0.0.1", port: 0 },
    redirectPort: 8443,
  });
  stack.defer(() => listener.close());
  const client = await stack.client({ port: listener.address.port });
  client.write("GET /a?b=c HTTP/1.1\r\nHost: Shop.test:8080\r\n\r\n");
  const redirect = await client.response();
  expect(redirect.status).toBe(301);
  expect(redirect.headers.get("location")).toBe("https://shop.test:8443/a?b=c");
  expect(redirect.headers.get("x-request-id")).toMatch(/^[0-9a-f]{24}$/);
  client.write("GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: shop.test\r\n\r\n");
  expect((await client.response()).body).toBe("served");
  client.write("POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\n\r\nx");
  const moved = await client.response();
  expect(moved.status).toBe(308);
  expect(moved.headers.get("connection")).toBe("close");
  expect(proxy.picks).toHaveLength(1);
});

interface Edge {
  readonly proxy: TestProxy;
  readonly listener: HttpListener;
  /** Handshakes and reloads in order. */
  readonly events: string[];
  readonly logged: LogFields[];
  expiresAtMs(): number;
  happened(event: string): Promise<void>;
}

interface EdgeOptions {
  /** A certificate each. */
  readonly names: readonly string[];
  readonly minVersion?: "TLSv1.2" | "TLSv1.3";
  readonly ticketKeys?: Uint8Array;
  readonly validityDays?: number;
  readonly handshakeMs?: number;
}

async function start(options: EdgeOptions): Promise<Edge> {
  const upstream = await stack.http((request, response) => {
    if (request.url === "/echo") request.pipe(response);
    else if (request.url === "/cut") {
      response.writeHead(200, { "content-length": "100" });
      response.write("part", () => request.socket.destroy());
    } else response.end(JSON.stringify(request.headers));
  });
  const proxy = await stack.proxy({ ports: [upstream] });
  const pairs: CertificateFiles[] = [];
  for (const name of options.names) {
    pairs.push(await certificates.write(name.replace("*", "any"), [name], options.validityDays));
  }
  const minVersion = options.minVersion ?? "TLSv1.2";
  const events: string[] = [];
  const logged: LogFields[] = [];
  let wake = (): void => undefined;
  let expiresAtMs = 0;
  const note = (event: string): void => {
    events.push(event);
    wake();
  };
  const listener = await createHttpListener({
    engine: proxy.engine,
    source: { host: "127.0.0.1", port: 0 },
    addedLines: "strict-transport-security: max-age=60\r\n",
    tls: {
      certificates: new TlsCertificates(pairs, minVersion),
      minVersion,
      handshakeMs: options.handshakeMs ?? 10_000,
      ticketKeys: options.ticketKeys,
      log: createLogger({
        level: "info",
        nowMs: () => Date.now(),
        write: (line) => logged.push(JSON.parse(line) as LogFields),
      }),
      observer: {
        handshakeDone: (isResumed) => (isResumed ? note("resumed") : undefined),
        handshakeFailed: () => note("failed"),
        reloadFailed: () => note("reload-failed"),
        expiryKnown: (ms) => void (expiresAtMs = ms),
      },
    },
  });
  stack.defer(() => listener.close());
  return {
    proxy,
    listener,
    events,
    logged,
    expiresAtMs: () => expiresAtMs,
    happened: async (event) => {
      while (!events.includes(event)) await new Promise<void>((resolve) => (wake = resolve));
    },
  };
}

/** A client's connection whose handshake is done. */
async function secure(edge: Edge, options: ConnectionOptions): Promise<TLSSocket> {
  const socket = connect({
    port: edge.listener.address.port,
    host: "127.0.0.1",
    ca: certificates.authority,
    ALPNProtocols: ["http/1.1"],
    // The certificate is looked at by the test.
    checkServerIdentity: () => undefined,
    ...options,
  });
  stack.defer(() => void socket.destroy());
  await once(socket, "secureConnect");
  return socket;
}

/** A session that can be resumed: with TLS 1.3 it comes after the handshake. */
async function sessionFrom(edge: Edge, version: "TLSv1.2" | "TLSv1.3"): Promise<Buffer> {
  const socket = connect({
    port: edge.listener.address.port,
    host: "127.0.0.1",
    ca: certificates.authority,
    maxVersion: version,
    checkServerIdentity: () => undefined,
  });
  stack.defer(() => void socket.destroy());
  const [session] = (await once(socket, "session")) as [Buffer];
  return session;
}
