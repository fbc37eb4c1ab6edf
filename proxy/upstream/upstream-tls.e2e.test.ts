/** Machines that speak HTTPS, on real sockets: who is believed, and what goes over the connection. */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";

import { TestCertificates } from "../testing/test-certificates.ts";
import type { TestProxy } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";
import { upstreamTlsOf } from "./upstream-tls.ts";

const stack = new TestStack();
let certificates: TestCertificates;
let authority: string;

beforeAll(async () => {
  certificates = await TestCertificates.create();
  authority = join(certificates.folder, "ca.pem");
  certificates.replace(authority, certificates.authority);
});

afterAll(() => certificates.remove());
afterEach(() => stack.close());

test("a machine with a good certificate is spoken to, on one connection for many requests", async () => {
  const { proxy } = await start({ names: ["machines.test"], server_name: "machines.test" });
  const client = await stack.client(proxy);
  for (let index = 0; index < 5; index += 1) {
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response()).body).toBe("machines.test");
  }
  expect(proxy.engine.pool.stats).toMatchObject({ dialled: 1, reused: 4 });
  expect(proxy.connectRtts).toHaveLength(1);
});

test("bodies of megabytes pass both ways unchanged", async () => {
  const { proxy } = await start({ names: ["machines.test"], server_name: "machines.test" });
  const client = await stack.client(proxy);
  const body = Buffer.from(new Uint8Array(5_000_000).map((_, at) => (at * 31 + (at >> 16)) % 253));
  client.write(`PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n`);
  client.write(body);
  expect((await client.response()).bytes.equals(body)).toBe(true);
});

test.each([
  ["another name", { names: ["others.test"] }, "ERR_TLS_CERT_ALTNAME_INVALID"],
  [
    "no word of its address",
    { names: ["machines.test"], server_name: undefined },
    "ERR_TLS_CERT_ALTNAME_INVALID",
  ],
  ["an authority that nobody knows", { ca_file: undefined }, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
  ["an end that is past", { validityDays: -1 }, "CERT_HAS_EXPIRED"],
])(
  "a certificate with %s is refused before a byte of the request is sent",
  async (_name, changed, cause) => {
    const { proxy, requests } = await start({
      names: ["machines.test"],
      server_name: "machines.test",
      ...changed,
    });
    const client = await stack.client(proxy);
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    const response = await client.response();
    expect(response.headers.get("patina-error")).toBe("UPSTREAM_CONNECT");
    await proxy.idle();
    expect(proxy.finished[0]).toMatchObject({ cause, retrySkipped: "no-other-machine" });
    expect(requests).toEqual([]);
    expect(proxy.inFlight()).toBe(0);
  },
);

test("a machine that answers TLS with plain HTTP is a failed connect", async () => {
  const port = await stack.raw((socket) => {
    socket.once("data", () => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  });
  const proxy = await stack.proxy({ ports: [port], hasTlsUpstreams: true });
  const client = await stack.client(proxy);
  client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  expect((await client.response()).headers.get("patina-error")).toBe("UPSTREAM_CONNECT");
});

test("an authority that cannot be read is told with its key", () => {
  expect(() => upstreamTlsOf({ ca_file: join(certificates.folder, "nowhere.pem") })).toThrow(
    /^proxy\.upstream_tls\.ca_file: .*ENOENT/,
  );
});

interface StartOptions {
  readonly names: readonly string[];
  readonly validityDays?: number;
  readonly server_name?: string | undefined;
  readonly ca_file?: string | undefined;
}

/** A proxy and one machine that answers with the name it was asked for. */
async function start(options: StartOptions): Promise<{ proxy: TestProxy; requests: string[] }> {
  const files = await certificates.write("machine", options.names, options.validityDays);
  const requests: string[] = [];
  const server: Server = createServer(
    { cert: readFileSync(files.cert_file), key: readFileSync(files.key_file) },
    (request, response) => {
      requests.push(request.url ?? "");
      if (request.url === "/echo") request.pipe(response);
      else response.end((request.socket as { servername?: string }).servername);
    },
  );
  server.on("tlsClientError", (_error, socket) => socket.destroy());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  stack.defer(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  });
  const proxy = await stack.proxy({
    ports: [(server.address() as AddressInfo).port],
    hasTlsUpstreams: true,
    upstreamTls: upstreamTlsOf({ ca_file: authority, ...options }),
  });
  return { proxy, requests };
}
