/**
 * The replica's HTTP API: Corrosion's endpoints (protocol reference, section 6), and the platform's
 * objects under `/v1/{nodes,apps,hostnames,machines}`.
 *
 * Not a hot path: `node:http` serves it. Every refusal says where and what is allowed; more
 * requests than a route can take are shed with 503 at once rather than queued.
 */
import { timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer, type Server as SecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { errorText, PatinaError } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { ApiCertificate } from "./api-certificate.ts";
import type { ApiBackend } from "./api-types.ts";
import { httpStatusOf } from "./errors.ts";
import { handleObject, OBJECT_KINDS } from "./object-routes.ts";
import { handleHealth, handleTableStats } from "./state-routes.ts";
import { handleQuery, handleTransaction } from "./statement-routes.ts";
import { handleSubscribe, handleSubscription, handleUpdates } from "./stream-routes.ts";
import {
  HttpProblem,
  requireMethod,
  sendJson,
  sendText,
  type ApiLimits,
  type ApiRequest,
  type ApiStats,
} from "./api-request.ts";

/** How the API is served. */
export interface ApiServerOptions {
  /** Where it is served; a host name or IP address, port 0 = chosen by the system. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  /** Requests must carry it as `Authorization: Bearer`; null = open to whoever reaches it. */
  readonly bearerToken: string | null;
  /** Requests that ask for an endpoint of another name are refused with 421. Default: none. */
  readonly endpointName?: string | null;
  /** HTTPS with this certificate; null = plain HTTP. Default null. */
  readonly certificate?: ApiCertificate | null;
  readonly backend: ApiBackend;
  readonly log: Logger;
  /** Told how long each query took to start. Default: nobody. */
  readonly onQuery?: ApiRequest["onQuery"];
  /** Default: bodies up to 100 MiB; a client that takes nothing for 60 s is cut. */
  readonly limits?: Partial<ApiLimits>;
}

/** The HTTP server of the API. */
export class ApiServer {
  readonly #options: ApiServerOptions;
  readonly #limits: ApiLimits;
  /** Those that are bound. */
  readonly #servers: Server[] = [];
  readonly #activeByRoute = new Map<string, number>();
  /** Requests by kind and outcome. */
  readonly stats: ApiStats = {
    requests: 0,
    transactions: 0,
    queries: 0,
    refused: 0,
    shed: 0,
    gone: 0,
    failed: 0,
  };

  constructor(options: ApiServerOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
  }

  /** Binds all. Rejects with `API_BIND` when an address cannot be had; then none is bound. */
  async listen(): Promise<AddressInfo[]> {
    const bound: AddressInfo[] = [];
    try {
      for (const { host, port } of this.#options.addresses) {
        bound.push(await this.#bind(host, port));
      }
    } catch (error) {
      await this.close();
      throw error;
    }
    return bound;
  }

  /** Has handshakes made with the certificate's new files, if they have changed. */
  refreshCertificate(): void {
    const { certificate } = this.#options;
    if (!certificate?.refresh(Date.now())) return;
    for (const server of this.#servers) {
      if ("setSecureContext" in server) (server as SecureServer).setSecureContext(certificate.pems);
    }
  }

  /** Stops accepting, ends idle connections, waits for answers that are under way. */
  async close(): Promise<void> {
    const servers = this.#servers.splice(0);
    const closed = servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    for (const server of servers) server.closeIdleConnections();
    const deadline = setTimeout(() => {
      for (const server of servers) server.closeAllConnections();
    }, CLOSE_LIMIT_MS);
    await Promise.all(closed);
    clearTimeout(deadline);
  }

  async #bind(host: string, port: number): Promise<AddressInfo> {
    const serve = (request: IncomingMessage, response: ServerResponse): void =>
      void this.#serve(request, response);
    const certificate = this.#options.certificate ?? null;
    const server =
      certificate === null
        ? createServer({ noDelay: true }, serve)
        : createSecureServer({ noDelay: true, ...certificate.pems }, serve);
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error: NodeJS.ErrnoException) =>
        reject(
          new PatinaError("API_BIND", `api.addr ${host}:${port} cannot be bound: ${error.code}`, {
            cause: error,
          }),
        ),
      );
      server.listen(port, host, () => resolve());
    });
    this.#servers.push(server);
    return server.address() as AddressInfo;
  }

  async #serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    this.stats.requests++;
    let route: string | null = null;
    try {
      if (!this.#isAuthorised(message)) throw new HttpProblem(401, "");
      this.#checkEndpointName(message.headers[ENDPOINT_NAME]);
      const url = requestUrl(message.url ?? "/");
      const known = routeOf(url.pathname);
      if (known === null) throw new HttpProblem(404, "");
      if (
        (this.#activeByRoute.get(known) ?? 0) >=
        (CONCURRENT_MAX_BY_ROUTE.get(known) ?? CONCURRENT_MAX)
      ) {
        this.stats.shed++;
        throw new HttpProblem(503, "max concurrency limit reached");
      }
      route = known;
      this.#activeByRoute.set(route, (this.#activeByRoute.get(route) ?? 0) + 1);
      const { backend, onQuery = () => undefined } = this.#options;
      const limits = this.#limits;
      const { stats } = this;
      await dispatch({ message, response, url, backend, limits, stats, onQuery }, route);
    } catch (error) {
      this.#answerFailure(response, error);
    } finally {
      if (route !== null) {
        this.#activeByRoute.set(route, (this.#activeByRoute.get(route) ?? 1) - 1);
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

  /** A client that wants one endpoint, and reaches another, must not be served by it. */
  #checkEndpointName(wanted: string | string[] | undefined): void {
    if (wanted === undefined) return;
    if (typeof wanted !== "string" || !/^[\t\x20-\x7e]*$/.test(wanted)) {
      throw new HttpProblem(400, "");
    }
    if (wanted !== (this.#options.endpointName ?? null)) throw new HttpProblem(421, "");
  }

  #answerFailure(response: ServerResponse, error: unknown): void {
    if (isGone(error) || response.headersSent || response.destroyed) {
      this.stats.gone++;
      // Nobody listens, or it is too late for a status: cutting the stream says that it failed.
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
      return sendJson(response, httpStatusOf(error), { error: error.message, code: error.code });
    }
    this.stats.failed++;
    this.#options.log.error("api-request-failed", errorText(error));
    sendJson(response, 500, { error: errorText(error) });
  }
}

async function dispatch(request: ApiRequest, route: string): Promise<void> {
  switch (route) {
    case "transactions":
      return handleTransaction(request);
    case "queries":
      return handleQuery(request);
    case "subscriptions":
      return handleSubscribe(request);
    case "subscriptions/id":
      return handleSubscription(request);
    case "updates":
      return handleUpdates(request);
    case "table_stats":
      return handleTableStats(request);
    case "health":
      return handleHealth(request);
    case "status":
      requireMethod(request, "GET");
      return sendJson(request.response, 200, request.backend.status());
    default: {
      const kind = OBJECT_KINDS.find((one) => one === route);
      if (kind === undefined) throw new HttpProblem(404, "");
      return handleObject(request, kind);
    }
  }
}

/** Whether the client ended its connection in the middle of its request. */
function isGone(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ECONNRESET";
}

function requestUrl(target: string): URL {
  const url = URL.parse(target, "http://localhost");
  if (url === null) throw new HttpProblem(400, "the request target is not a URL");
  return url;
}

/** The route of a path, by which requests are counted and limited; null = there is none. */
function routeOf(path: string): string | null {
  const [, version, route = "", ...rest] = path.split("/");
  if (version !== "v1") return null;
  if (OBJECT_KINDS.some((kind) => kind === route)) return route;
  if (rest.length === 1 && route === "subscriptions") return "subscriptions/id";
  if (rest.length === 1 && route === "updates") return "updates";
  return rest.length === 0 && PLAIN_ROUTES.has(route) ? route : null;
}

const ENDPOINT_NAME = "x-corrosion-requested-endpoint-name";
const PLAIN_ROUTES: ReadonlySet<string> = new Set(
  "transactions queries subscriptions table_stats health status".split(" "),
);
/** Corrosion's limit per route. */
const CONCURRENT_MAX = 128;
/** Likewise; where it allows fewer. */
const CONCURRENT_MAX_BY_ROUTE: ReadonlyMap<string, number> = new Map([
  ["table_stats", 4],
  ["health", 4],
]);
const CLOSE_LIMIT_MS = 2_000;
const DEFAULT_LIMITS: ApiLimits = { bodyBytesMax: 100 * 1024 * 1024, drainMsMax: 60_000 };
