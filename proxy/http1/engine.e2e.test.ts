/**
 * The engine on real sockets: a raw client that writes bytes and reads bytes, upstreams that are
 * `node:http` servers where behaviour matters and raw sockets where bytes do. Nothing waits for
 * time: each step waits for the bytes or the event it is about.
 */
import { once } from "node:events";
import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import { createServer, type AddressInfo, type Server as RawServer, type Socket } from "node:net";

import { afterEach, describe, expect, test } from "vitest";

import { TestClient } from "../testing/test-client.ts";
import { startProxy, type TestProxy } from "../testing/test-proxy.ts";

const closers: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

describe("requests", () => {
  test("a GET reaches the upstream with forwarding headers and comes back", async () => {
    const port = await httpUpstream((request, response) => {
      response.end(JSON.stringify({ url: request.url, headers: request.headers }));
    });
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    client.write("GET /a?b=1 HTTP/1.1\r\nHost: Example.COM:81\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n");
    const response = await client.response();
    expect(response.status).toBe(200);
    const seen = JSON.parse(response.body);
    expect(seen.url).toBe("/a?b=1");
    expect(seen.headers).toMatchObject({
      host: "Example.COM:81",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-proto": "http",
      "x-forwarded-host": "Example.COM:81",
      "x-forwarded-port": String(proxy.port),
      via: "1.1 patina-test",
    });
    expect(response.headers.get("x-request-id")).toBe(seen.headers["x-request-id"]);
    expect(response.headers.get("via")).toBe("1.1 patina-test");
    expect(proxy.picks[0]).toEqual({ host: "example.com", method: "GET", target: "/a?b=1" });
    expect(proxy.finished[0]).toMatchObject({ status: 200, attempts: 1, errorCode: "" });
    expect(proxy.inFlight()).toBe(0);
  });

  test("an inbound request id is kept when it is well formed and replaced when not", async () => {
    const port = await httpUpstream((request, response) => {
      response.end(String(request.headers["x-request-id"]));
    });
    const client = await clientOf(await proxyTo(port));
    client.write("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-1\r\n\r\n");
    expect((await client.response()).body).toBe("abc-1");
    client.write("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a b\r\n\r\n");
    expect((await client.response()).body).toMatch(/^[0-9a-f]{24}$/);
  });

  test("an absolute-form target is normalised and overrides Host", async () => {
    const port = await httpUpstream((request, response) => {
      response.end(`${request.url} ${request.headers.host}`);
    });
    const client = await clientOf(await proxyTo(port));
    client.write("GET http://one.example/x HTTP/1.1\r\nHost: two.example\r\n\r\n");
    expect((await client.response()).body).toBe("/x one.example");
    client.write("GET http://one.example HTTP/1.1\r\nHost: two.example\r\n\r\n");
    expect((await client.response()).body).toBe("/ one.example");
  });

  test("keep-alive on both sides: ten requests use one upstream connection", async () => {
    const port = await httpUpstream((_request, response) => response.end("x"));
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    for (let index = 0; index < 10; index += 1) {
      client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
      expect((await client.response()).status).toBe(200);
    }
    expect(proxy.engine.pool.stats).toMatchObject({ dialled: 1, reused: 9 });
    proxy.engine.pool.dropMachine("other");
    expect(proxy.engine.pool.idleCount).toBe(1);
    proxy.engine.pool.dropMachine("m0");
    expect(proxy.engine.pool.idleCount).toBe(0);
  });

  test("pipelined requests are answered in order", async () => {
    const port = await httpUpstream((request, response) => {
      // The first answer is held until the second request could have overtaken it.
      if (request.url === "/0") setImmediate(() => response.end("/0"));
      else response.end(request.url);
    });
    const client = await clientOf(await proxyTo(port));
    let text = "";
    for (let index = 0; index < 20; index += 1) text += `GET /${index} HTTP/1.1\r\nHost: a\r\n\r\n`;
    client.write(text);
    for (let index = 0; index < 20; index += 1) {
      expect((await client.response()).body).toBe(`/${index}`);
    }
  });

  test("pipelined requests before a half-close are all answered, then the socket ends", async () => {
    const port = await httpUpstream((request, response) => response.end(request.url));
    const client = await clientOf(await proxyTo(port));
    client.socket.end("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response()).body).toBe("/1");
    expect((await client.response()).body).toBe("/2");
    await client.ended();
  });

  test("HEAD, 204 and 304 have no body and keep the connection", async () => {
    const port = await httpUpstream((request, response) => {
      if (request.method === "HEAD") response.setHeader("content-length", "5").end();
      else response.writeHead(Number(request.url?.slice(1))).end();
    });
    const client = await clientOf(await proxyTo(port));
    client.write("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response({ isHead: true })).headers.get("content-length")).toBe("5");
    client.write("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response()).status).toBe(204);
    client.write("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response()).status).toBe(304);
  });

  test("an HTTP/1.0 client gets a body without chunks and a closed connection", async () => {
    const port = await httpUpstream((_request, response) => {
      response.write("one ");
      setImmediate(() => response.end("two"));
    });
    const client = await clientOf(await proxyTo(port));
    client.write("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    const text = (await client.ended()).toString();
    expect(text).not.toMatch(/transfer-encoding/i);
    expect(text.endsWith("\r\n\r\none two")).toBe(true);
  });

  test("an HTTP/1.0 client that asks for keep-alive gets it with a length", async () => {
    const port = await httpUpstream((_request, response) => {
      response.setHeader("content-length", "1").end("x");
    });
    const client = await clientOf(await proxyTo(port));
    for (let index = 0; index < 2; index += 1) {
      client.write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
      const response = await client.response();
      expect(response.headers.get("connection")).toBe("keep-alive");
    }
  });

  test("hop-by-hop headers and those named in Connection stop here, both ways", async () => {
    const port = await rawUpstream((socket) => {
      socket.once("data", (bytes) => {
        const names = bytes
          .toString()
          .split("\r\n")
          .slice(1)
          .map((line) => line.split(":")[0]);
        const body = names
          .filter((name) => name !== "")
          .join(" ")
          .toLowerCase();
        socket.write(
          "HTTP/1.1 200 OK\r\nConnection: X-Own\r\nX-Own: 1\r\nKeep-Alive: 5\r\nX-Kept: 1\r\n" +
            `Content-Length: ${body.length}\r\n\r\n${body}`,
        );
      });
    });
    const client = await clientOf(await proxyTo(port));
    client.write(
      "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-mine, Host, content-length\r\nX-Mine: 1\r\n" +
        "Keep-Alive: 1\r\nTE: gzip\r\nProxy-Connection: x\r\nX-Kept: 1\r\n\r\n",
    );
    const response = await client.response();
    expect(response.body).toBe(
      "host x-kept x-forwarded-for x-forwarded-proto x-forwarded-port x-forwarded-host via " +
        "x-request-id",
    );
    expect([...response.headers.keys()].sort()).toEqual([
      "content-length",
      "via",
      "x-kept",
      "x-request-id",
    ]);
  });
});

describe("bodies", () => {
  test("eight megabytes pass both ways through a slow reader unchanged", async () => {
    const port = await httpUpstream((request, response) => request.pipe(response));
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    const body = Buffer.from(new Uint8Array(8 << 20).map((_, index) => (index * 7) % 251));
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n`);
    client.write(body);
    const response = await client.response();
    expect(response.bytes.equals(body)).toBe(true);
    expect(proxy.finished).toHaveLength(1);
  });

  test("a client that does not read stops the upstream, and gets all when it reads", async () => {
    // Pieces below the write buffer's mark: the proxy goes on reading while some of a piece waits,
    // which is where a buffer used again too early would show.
    const body = Buffer.from(new Uint8Array(24 << 20).map((_, at) => (at * 31 + (at >> 16)) % 253));
    let sent = 0;
    const port = await rawUpstream((socket) => {
      const more = (): void => {
        const piece = body.subarray(sent, sent + 20_000);
        sent += piece.length;
        if (piece.length === 0) return;
        if (socket.write(piece)) setImmediate(more);
        else socket.once("drain", more);
      };
      socket.once("data", (head) => {
        const isLong = head.toString().startsWith("GET /long");
        const length = isLong ? body.length : 50_000;
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n`);
        if (isLong) more();
        else socket.end(body.subarray(0, length));
      });
    });
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    client.socket.pause();
    client.write("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    // Others use the shared buffers in the meantime, until nothing moves on the long way.
    const other = await clientOf(proxy);
    for (;;) {
      const before = sent;
      for (let round = 0; round < 20; round += 1) {
        other.write("GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
        expect((await other.response()).bytes.equals(body.subarray(0, 50_000))).toBe(true);
      }
      if (sent > 0 && sent === before) break;
    }
    expect(sent).toBeLessThan(body.length);
    client.socket.resume();
    expect((await client.response()).bytes.equals(body)).toBe(true);
  });

  test("a client that pipelines and does not read is not served ahead, and loses nothing", async () => {
    const count = 1200;
    const bodyOf = (seed: number): Buffer =>
      Buffer.from(new Uint8Array(15_000).map((_, at) => (at * 31 + seed * 7) % 253));
    const port = await httpUpstream((request, response) => {
      const body = bodyOf(Number(request.url?.slice(1)));
      response.setHeader("content-length", body.length).end(body);
    });
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    const other = await clientOf(proxy);
    client.socket.pause();
    for (let index = 0; index < count; index += 1) {
      client.write(`GET /${index} HTTP/1.1\r\nHost: a\r\n\r\n`);
    }
    client.write(`GET /${count} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    let finished = 0;
    for (;;) {
      const before = finished;
      for (let round = 0; round < 20; round += 1) {
        other.write("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
        expect((await other.response()).bytes.equals(bodyOf(0))).toBe(true);
      }
      finished = proxy.finished.filter(({ target }) => target !== "/0").length;
      if (finished >= 20 && finished === before) break;
    }
    expect(finished).toBeLessThan(count);
    client.socket.resume();
    const bytes = await client.ended();
    let at = 0;
    for (let index = 0; index <= count; index += 1) {
      at = bytes.indexOf("\r\n\r\n", at) + 4;
      expect(bytes.subarray(at, at + 15_000).equals(bodyOf(index))).toBe(true);
      at += 15_000;
    }
    expect(at).toBe(bytes.length);
  });

  test("many bodies at once, slow readers among them, are never mixed", async () => {
    const lengths = [100, 20_000, 70_000, 900_000, 3_000_000];
    const bodyOf = (seed: number): Buffer => {
      const length = lengths[seed % lengths.length] as number;
      return Buffer.from(new Uint8Array(length).map((_, at) => (at * 31 + seed * 7) % 253));
    };
    const port = await httpUpstream((request, response) => {
      const body = bodyOf(Number(request.url?.slice(1)));
      const isChunked = request.headers["x-chunked"] === "1";
      if (!isChunked) response.setHeader("content-length", body.length);
      for (let at = 0; at < body.length; at += 50_000)
        response.write(body.subarray(at, at + 50_000));
      response.end();
    });
    const proxy = await proxyTo(port);
    const clients = await Promise.all(Array.from({ length: 15 }, () => clientOf(proxy)));
    await Promise.all(
      clients.map(async (client, index) => {
        // Every third client stops reading at each chunk and goes on in a later turn.
        if (index % 3 === 0) {
          client.socket.on("data", () => {
            client.socket.pause();
            setImmediate(() => client.socket.resume());
          });
        }
        for (let round = 0; round < 4; round += 1) {
          const seed = index + round;
          const chunked = (index + round) % 2;
          client.write(`GET /${seed} HTTP/1.1\r\nHost: a\r\nX-Chunked: ${chunked}\r\n\r\n`);
          const response = await client.response();
          expect(response.bytes.equals(bodyOf(seed))).toBe(true);
        }
      }),
    );
    expect(proxy.inFlight()).toBe(0);
  });

  test("chunked bodies pass as they came, trailers and extensions included", async () => {
    const chunked = "4;x=y\r\nWiki\r\n05\r\npedia\r\n0\r\nX-Sum: 1\r\n\r\n";
    let seen = "";
    const port = await rawUpstream((socket) => {
      socket.on("data", (bytes) => {
        seen += bytes.toString();
        if (!seen.endsWith("X-Sum: 1\r\n\r\n")) return;
        socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        setImmediate(() => socket.write(chunked.slice(0, 9)));
        setImmediate(() => socket.write(chunked.slice(9)));
      });
    });
    const client = await clientOf(await proxyTo(port));
    client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const byte of chunked) client.write(byte);
    const text = await client.until("X-Sum: 1\r\n\r\n");
    expect(seen.endsWith(`\r\n\r\n${chunked}`)).toBe(true);
    expect(text.endsWith(`\r\n\r\n${chunked}`)).toBe(true);
  });

  test("100-continue is passed on, and the body follows it", async () => {
    const port = await httpUpstream((request, response) => request.pipe(response));
    const client = await clientOf(await proxyTo(port));
    client.write("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    expect((await client.response()).status).toBe(100);
    client.write("hello");
    expect((await client.response()).body).toBe("hello");
  });

  test("103 passes before the final response", async () => {
    const port = await httpUpstream((_request, response) => {
      response.writeEarlyHints({ link: "</a.css>; rel=preload" });
      response.end("done");
    });
    const client = await clientOf(await proxyTo(port));
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response()).status).toBe(103);
    expect((await client.response()).body).toBe("done");
  });

  test("an answer before the body is read is delivered, then the connection closes", async () => {
    const port = await rawUpstream((socket) => {
      socket.once("data", () => {
        socket.write("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
      });
    });
    const client = await clientOf(await proxyTo(port));
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nstart");
    const response = await client.response();
    expect(response.status).toBe(413);
    expect(response.headers.get("connection")).toBe("close");
    await client.ended();
  });
});

describe("failures", () => {
  test("a refused connect goes to the next machine, for any method, with its body", async () => {
    const dead = await deadPort();
    const port = await httpUpstream((request, response) => request.pipe(response));
    const proxy = await proxyTo(dead, port);
    const client = await clientOf(proxy);
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    expect((await client.response()).body).toBe("body");
    expect(proxy.connectFailures).toEqual([{ machineId: "m0", code: "ECONNREFUSED" }]);
    expect(proxy.finished[0]).toMatchObject({ attempts: 2, status: 200 });
    expect(proxy.inFlight()).toBe(0);
  });

  test("when no machine can be connected to, the answer is 502 with its code", async () => {
    const proxy = await proxyTo(await deadPort(), await deadPort());
    const client = await clientOf(proxy);
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const response = await client.response();
    expect(response.status).toBe(502);
    expect(response.headers.get("patina-error")).toBe("UPSTREAM_CONNECT");
    expect(response.headers.get("x-request-id")).toMatch(/^[0-9a-f]{24}$/);
    client.write("GET / HTTP/1.1\r\nHost: unknown\r\n\r\n");
    expect((await client.response()).headers.get("patina-error")).toBe("ROUTE_NO_APP");
    expect(proxy.inFlight()).toBe(0);
  });

  test("an upstream that dies in the middle of a body cuts the client off", async () => {
    const port = await rawUpstream((socket) => {
      socket.once("data", () => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", () => socket.destroy());
      });
    });
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    await client.broken();
    await proxy.idle();
    expect(proxy.finished[0]).toMatchObject({ status: 200, errorCode: "UPSTREAM_RESET" });
    expect(proxy.attempts).toEqual(["reset-mid-response"]);
  });

  test("an upstream that closes before it answers is a 502, and a POST is not repeated", async () => {
    let requests = 0;
    const port = await rawUpstream((socket) => {
      socket.once("data", () => {
        requests += 1;
        socket.end();
      });
    });
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    expect((await client.response()).headers.get("patina-error")).toBe("UPSTREAM_RESET");
    expect(requests).toBe(1);
    expect(proxy.finished[0]?.retrySkipped).toBe("not-idempotent");
  });

  test("a GET that a machine took and broke off is moved to another machine", async () => {
    const dying = await rawUpstream((socket) => socket.once("data", () => socket.destroy()));
    const healthy = await rawUpstream((socket) => {
      socket.once("data", () => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    });
    const proxy = await proxyTo(dying);
    proxy.setPorts([dying, healthy]);
    const client = await clientOf(proxy);
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response()).body).toBe("ok");
    expect(proxy.attempts).toEqual(["reset-before-response", "answered"]);
    expect(proxy.inFlight()).toBe(0);
  });

  test("a stale pooled connection is made up for once by a fresh one", async () => {
    let connections = 0;
    const port = await rawUpstream((socket) => {
      connections += 1;
      const isFirst = connections === 1;
      let requests = 0;
      socket.on("data", () => {
        requests += 1;
        if (isFirst && requests === 2) socket.resetAndDestroy();
        else socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      });
    });
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    for (let index = 0; index < 2; index += 1) {
      client.write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
      expect((await client.response()).body).toBe("ok");
    }
    expect(connections).toBe(2);
    expect(proxy.attempts).toEqual(["answered", "reset-before-response", "answered"]);
  });

  test.each([
    ["garbage", "SSH-2.0-OpenSSH_9.2p1 Debian\r\n\r\n"],
    [
      "both framing headers",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"],
    ["a folded header", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"],
    ["an unasked switch", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"],
  ])("an upstream's response with %s is a 502", async (_name, bytes) => {
    const port = await rawUpstream((socket) => socket.once("data", () => socket.write(bytes)));
    const client = await clientOf(await proxyTo(port));
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const response = await client.response();
    expect(response.status).toBe(502);
    expect(response.headers.get("patina-error")).toBe("UPSTREAM_RESPONSE");
  });

  test("a request that has been here before is a loop", async () => {
    const proxy: TestProxy = await proxyTo(0);
    proxy.setPorts([proxy.port]);
    const client = await clientOf(proxy);
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const response = await client.response();
    expect(response.status).toBe(508);
    expect(response.headers.get("patina-error")).toBe("PROXY_LOOP");
  });

  test("a client that resets takes its upstream request with it", async () => {
    const arrived = Promise.withResolvers<Socket>();
    const port = await rawUpstream((socket) => socket.once("data", () => arrived.resolve(socket)));
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const socket = await arrived.promise;
    client.socket.resetAndDestroy();
    await once(socket, "close");
    await proxy.idle();
    expect(proxy.finished[0]).toMatchObject({ errorCode: "CLIENT_GONE", status: 0 });
    expect(proxy.inFlight()).toBe(0);
  });

  test("a client that ends in the middle of its body takes its upstream request with it", async () => {
    const arrived = Promise.withResolvers<Socket>();
    const port = await rawUpstream((socket) => socket.once("data", () => arrived.resolve(socket)));
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    client.socket.end("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
    await once(await arrived.promise, "close");
    await proxy.idle();
    expect(proxy.finished[0]).toMatchObject({ errorCode: "CLIENT_GONE", status: 0 });
  });

  test("a half-closed client that gets no response is given up after a while", async () => {
    const arrived = Promise.withResolvers<Socket>();
    const port = await rawUpstream((socket) => socket.once("data", () => arrived.resolve(socket)));
    const proxy = await proxyWith({ ports: [port], times: { responseHeadMs: 1e9 } });
    const client = await clientOf(proxy);
    client.socket.end("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const socket = await arrived.promise;
    // The client's end arrives in a turn of its own; from then on five seconds count.
    for (let minutes = 1; !socket.destroyed; minutes += 1) {
      await proxy.turn();
      proxy.engine.tick(performance.now() + minutes * 60_000);
    }
    await proxy.idle();
    expect(proxy.attempts).toEqual(["aborted"]);
  });

  test("clients that vanish at every offset of a request leave nothing behind", async () => {
    const port = await httpUpstream((request, response) => request.pipe(response));
    const proxy = await proxyTo(port);
    const text =
      "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (let offset = 0; offset <= text.length; offset += 1) {
      const client = await TestClient.connect(proxy.port);
      client.write(text.slice(0, offset));
      if (offset % 2 === 0) client.socket.resetAndDestroy();
      else client.socket.destroySoon();
    }
    while (proxy.engine.connectionCount > 0) await proxy.turn();
    expect(proxy.inFlight()).toBe(0);
    expect(proxy.refusals).toEqual([]);
  });

  test("a request cut in two at every byte is answered the same", async () => {
    const port = await httpUpstream((request, response) => request.pipe(response));
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    const text =
      "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (let offset = 1; offset < text.length; offset += 1) {
      const arrived = proxy.nextProgress();
      client.write(text.slice(0, offset));
      await arrived;
      client.write(text.slice(offset));
      expect((await client.response()).body).toBe("abc");
    }
  });

  test("a response cut in two at every byte arrives the same", async () => {
    const text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let offset = 0;
    const port = await rawUpstream((socket) => {
      socket.on("data", () => {
        offset += 1;
        socket.write(text.slice(0, offset));
        setImmediate(() => socket.write(text.slice(offset)));
      });
    });
    const client = await clientOf(await proxyTo(port));
    for (let index = 1; index < text.length; index += 1) {
      client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
      expect((await client.response()).body).toBe("abc");
    }
  });

  test("a refused head is answered once and the connection closes", async () => {
    const proxy = await proxyTo(await deadPort());
    const client = await clientOf(proxy);
    client.write("GET / HTTP/1.1\r\nHost : a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const text = (await client.ended()).toString();
    expect(text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
    expect(text).toContain("patina-error: HEAD_SPACE_BEFORE_COLON");
    expect(text.match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect(proxy.refusals).toEqual(["client HEAD_SPACE_BEFORE_COLON"]);
  });
});

describe("deadlines", () => {
  test.each([
    ["a head that does not come whole is a 408", "GET / HT", 408, "CLIENT_HEAD_TIMEOUT"],
    [
      "a machine that does not answer is a 504",
      "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
      504,
      "UPSTREAM_RESPONSE_TIMEOUT",
    ],
    [
      "a body that stops is a 408",
      "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
      408,
      "CLIENT_BODY_TIMEOUT",
    ],
  ])("%s", async (_name, bytes, status, code) => {
    const arrived = Promise.withResolvers<void>();
    const port = await rawUpstream((socket) => socket.once("data", () => arrived.resolve()));
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    const progressed = proxy.nextProgress();
    client.write(bytes);
    await (code === "CLIENT_HEAD_TIMEOUT" ? progressed : arrived.promise);
    proxy.engine.tick(performance.now() + 120_000);
    const response = await client.response();
    expect(response.status).toBe(status);
    expect(response.headers.get("patina-error")).toBe(code);
  });

  test("an idle keep-alive connection is closed", async () => {
    const port = await httpUpstream((_request, response) => response.end("x"));
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    await client.response();
    proxy.engine.tick(performance.now() + 80_000);
    await client.ended();
    expect(proxy.engine.pool.idleCount).toBe(0);
  });
});

describe("tunnels and drain", () => {
  test("after 101 bytes pass both ways until one side ends", async () => {
    const port = await rawUpstream((socket) => {
      socket.once("data", (head) => {
        expect(head.toString()).toMatch(/upgrade: echo\r\n/i);
        expect(head.toString()).toMatch(/connection: upgrade\r\n/i);
        socket.write("HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhi");
        socket.pipe(socket);
      });
    });
    const proxy = await proxyTo(port);
    const client = await clientOf(proxy);
    client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    await client.until("\r\n\r\nhi");
    client.write("over and out");
    await client.until("over and out");
    client.socket.end();
    await client.ended();
    await proxy.idle();
    expect(proxy.finished[0]).toMatchObject({ status: 101, errorCode: "" });
  });

  test("h2c is not passed on", async () => {
    const port = await httpUpstream((request, response) => {
      response.end(JSON.stringify(Object.keys(request.headers)));
    });
    const client = await clientOf(await proxyTo(port));
    client.write(
      "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" +
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    const names = JSON.parse((await client.response()).body);
    expect(names).not.toContain("upgrade");
    expect(names).not.toContain("http2-settings");
  });

  test("drain closes idle connections and lets requests in flight finish", async () => {
    const asked = Promise.withResolvers<() => void>();
    const port = await httpUpstream((_request, response) => {
      asked.resolve(() => response.end("late"));
    });
    const proxy = await proxyTo(port);
    const idle = await clientOf(proxy);
    const busy = await clientOf(proxy);
    busy.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const answer = await asked.promise;
    const drained = proxy.listener.drain(30_000);
    await idle.ended();
    answer();
    const response = await busy.response();
    expect(response.headers.get("connection")).toBe("close");
    idle.socket.end();
    busy.socket.end();
    expect(await drained).toBe(0);
  });

  test("an emulated distance delays connects and bytes, and changes none", async () => {
    const port = await httpUpstream((request, response) => request.pipe(response));
    const proxy = await proxyWith({ ports: [port], delay: { oneWayDelayMs: () => 5 } });
    const client = await clientOf(proxy);
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfar!");
    expect((await client.response()).body).toBe("far!");
    expect(proxy.connectRtts[0]).toBeGreaterThanOrEqual(9);
  });
});

async function proxyTo(...ports: number[]): Promise<TestProxy> {
  return proxyWith({ ports });
}

async function proxyWith(options: Parameters<typeof startProxy>[0]): Promise<TestProxy> {
  const proxy = await startProxy(options);
  closers.push(() => proxy.listener.close());
  return proxy;
}

async function clientOf(proxy: TestProxy): Promise<TestClient> {
  const client = await TestClient.connect(proxy.port);
  closers.push(async () => client.socket.destroy());
  return client;
}

async function httpUpstream(listener: RequestListener): Promise<number> {
  const server: Server = createHttpServer({ keepAliveTimeout: 0 }, listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  closers.push(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  });
  return (server.address() as AddressInfo).port;
}

async function rawUpstream(onSocket: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server: RawServer = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  closers.push(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  });
  return (server.address() as AddressInfo).port;
}

/** A port on which nothing listens. */
async function deadPort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
