/**
 * The replica's HTTP API: Corrosion's endpoints (protocol reference, section 6), and the platform's
 * objects under `/v1/{nodes,apps,hostnames,machines}`.
 *
 * Not a hot path: `node:http` serves it. Every refusal says where and what is allowed; more requests
 * than a route can take are shed with 503 at once rather than queued.
 */
import { timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { errorText, PatinaError } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { ApiBackend } from "./api-types.ts";
import { handleObject, OBJECT_KINDS } from "./object-routes.ts";
import { handleQuery, handleTransaction } from "./statement-routes.ts";
import { HttpProblem, sendJson, sendText, type ApiRequest } from "./api-request.ts";

/** How the API is served. */
export interface ApiServerOptions {
  readonly host: string;
  readonly port: number;
  /** Requests must carry it as `Authorization: Bearer`; null = open, for loopback only. */
  readonly bearerToken: string | null;
  readonly backend: ApiBackend;
  readonly log: Logger;
}

/** The HTTP server of the API. */
export class ApiServer {
  readonly #options: ApiServerOptions;
  readonly #server: Server;
  readonly #activeByRoute = new Map<string, number>();
  /** Requests by outcome, for metrics. */
  readonly stats = { requests: 0, refused: 0, shed: 0, failed: 0 };

  constructor(options: ApiServerOptions) {
    this.#options = options;
    this.#server = createServer({ noDelay: true }, (request, response) => {
      void this.#serve(request, response);
    });
  }

  /** Binds. Rejects with `API_BIND` when the address cannot be had. */
  async listen(): Promise<AddressInfo> {
    const { host, port } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", (error: NodeJS.ErrnoException) =>
        reject(
          new PatinaError("API_BIND", `api.addr ${host}:${port} cannot be bound: ${error.code}`, {
            cause: error,
          }),
        ),
      );
      this.#server.listen(port, host, () => resolve());
    });
    return this.#server.address() as AddressInfo;
  }

  /** Stops accepting, ends idle connections, waits for answers that are under way. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const deadline = setTimeout(() => this.#server.closeAllConnections(), CLOSE_LIMIT_MS);
    await closed;
    clearTimeout(deadline);
  }

  async #serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    this.stats.requests++;
    const url = new URL(message.url ?? "/", "http://localhost");
    const request: ApiRequest = { message, response, url, backend: this.#options.backend };
    const route = url.pathname.split("/").slice(0, 3).join("/");
    const active = (this.#activeByRoute.get(route) ?? 0) + 1;
    try {
      if (!this.#isAuthorised(message)) throw new HttpProblem(401, "");
      if (active > CONCURRENT_MAX) {
        this.stats.shed++;
        throw new HttpProblem(503, "max concurrency limit reached");
      }
      if (KNOWN_ROUTES.has(route)) this.#activeByRoute.set(route, active);
      await dispatch(request, route);
    } catch (error) {
      this.#answerFailure(response, error);
    } finally {
      if (KNOWN_ROUTES.has(route)) {
        this.#activeByRoute.set(route, Math.max(0, (this.#activeByRoute.get(route) ?? 1) - 1));
      }
    }
  }

  #isAuthorised(message: IncomingMessage): boolean {
    const { bearerToken } = this.#options;
    if (bearerToken === null) return true;
    const given = Buffer.from(message.headers.authorization ?? "");
    const wanted = Buffer.from(`Bearer ${bearerToken}`);
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  }

  #answerFailure(response: ServerResponse, error: unknown): void {
    if (response.headersSent || response.destroyed) {
      // Too late for a status: cutting the stream is the only way left to say that it failed.
      response.destroy();
      return;
    }
    if (error instanceof HttpProblem) {
      this.stats.refused++;
      return error.status === 401 || error.message === ""
        ? void response.writeHead(error.status, error.headers).end()
        : sendText(response, error);
    }
    if (error instanceof PatinaError) {
      this.stats.refused++;
      const status =
        typeof error.details["httpStatus"] === "number" ? error.details["httpStatus"] : 500;
      return sendJson(response, status, { error: error.message, code: error.code });
    }
    this.stats.failed++;
    this.#options.log.error("api-request-failed", errorText(error));
    sendJson(response, 500, { error: errorText(error) });
  }
}

async function dispatch(request: ApiRequest, route: string): Promise<void> {
  switch (route) {
    case "/v1/transactions":
      return handleTransaction(request);
    case "/v1/queries":
      return handleQuery(request);
    case "/v1/status":
      return sendJson(request.response, 200, request.backend.status());
    default: {
      const kind = OBJECT_KINDS.find((one) => route === `/v1/${one}`);
      if (kind === undefined) throw new HttpProblem(404, "");
      return handleObject(request, kind);
    }
  }
}

const KNOWN_ROUTES = new Set([
  "/v1/transactions",
  "/v1/queries",
  "/v1/status",
  ...OBJECT_KINDS.map((kind) => `/v1/${kind}`),
]);
/** Corrosion's limit per route. */
const CONCURRENT_MAX = 128;
const CLOSE_LIMIT_MS = 2_000;
