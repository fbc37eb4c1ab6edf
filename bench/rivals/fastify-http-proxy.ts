/**
 * @fastify/http-proxy as a rival: a route per host, which is Fastify's Host map, over undici's pool.
 * Fastify's own logger is off; the access log is the one of the other rivals.
 */
import type { IncomingMessage } from "node:http";
import type { AddressInfo, Server } from "node:net";
import httpProxy from "@fastify/http-proxy";
import fastify, { type FastifyInstance, type FastifyRequest } from "fastify";
import {
  addedToRequest,
  certificate,
  CONNECTIONS_MAX,
  logWhenSent,
  originByHost,
  requestId,
  tellPorts,
  withoutHopByHop,
} from "./node-rival.ts";

const options = {
  logger: false,
  genReqId: requestId,
  keepAliveTimeout: 3_600_000,
  bodyLimit: 1 << 30,
};
const plain = fastify(options);
const secure = fastify({ ...options, https: certificate() });
for (const app of [plain, secure as unknown as FastifyInstance]) {
  app.addHook("onRequest", (request, reply, done) => {
    logWhenSent(request.raw, reply.raw, request.id);
    reply.header("via", "1.1 fastify").header("x-request-id", request.id);
    done();
  });
  for (const [host, upstream] of originByHost) {
    void app.register(httpProxy, {
      upstream,
      constraints: { host },
      websocket: true,
      undici: { connections: CONNECTIONS_MAX, pipelining: 1 },
      replyOptions: {
        // It passes on what the machine said of its own connection, and clients that asked for a
        // close take it for a promise.
        rewriteHeaders: withoutHopByHop,
        rewriteRequestHeaders: (request, headers) => ({
          ...headers,
          ...addedToRequest(request.raw as IncomingMessage, {
            id: (request as FastifyRequest).id,
            via: "fastify",
          }),
        }),
      },
    });
  }
  await app.listen({ port: 0, host: "127.0.0.1", backlog: 4096 });
}
tellPorts(portOf(plain.server), portOf(secure.server));

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
