/**
 * Puts the HTTP API together: its server, the threads that read for it, and what it asks of the
 * replica.
 */
import { dirname, join } from "node:path";
import { joinHostPort, splitHostPort } from "#base/host-port.ts";
import type { Logger } from "#base/logger.ts";
import { apiAddresses, type ApiConfig, type DbConfig } from "../../config.ts";
import type { ReplicaCore } from "../../core/replica-core.ts";
import type { Address } from "../../types.ts";
import { QueryThread } from "../query/query-thread.ts";
import type { ReplicaDriver } from "../replica-driver.ts";
import { missingVersions } from "../replica-metrics.ts";
import type { StoreClient } from "../store/store-client.ts";
import { SubscriptionThread } from "../subscriptions/subscription-thread.ts";
import { API_CERTIFICATE_PERIOD_MS, ApiCertificate } from "./api-certificate.ts";
import type { ApiRequest } from "./api-request.ts";
import { ApiServer } from "./api-server.ts";
import type { Health } from "./api-types.ts";
import { createStoreBackend } from "./store-backend.ts";

/** What the API stands on. */
export interface ApiParts {
  readonly api: ApiConfig;
  readonly db: DbConfig;
  readonly extensionPath: string;
  readonly deadlinePath: string;
  readonly store: StoreClient;
  readonly core: ReplicaCore;
  readonly driver: ReplicaDriver;
  /** State for `GET /v1/status`; plain JSON. */
  readonly status: () => unknown;
  readonly log: Logger;
  readonly onQuery: ApiRequest["onQuery"];
}

/** The API as its owner holds it. */
export interface OpenApi {
  readonly server: ApiServer;
  /** Where it is served; in the order of the config. */
  readonly addresses: readonly Address[];
  readonly queries: QueryThread;
  readonly streams: SubscriptionThread;
  /** Of its HTTPS; null = plain HTTP. */
  readonly certificate: ApiCertificate | null;
  /** Ends streams and queries, waits shortly for other answers. */
  close(): Promise<void>;
}

/** Opens the API. Rejects with `API_BIND` or a code of the store; nothing is left open then. */
export async function openApi(parts: ApiParts): Promise<OpenApi> {
  const { api, db, extensionPath, deadlinePath, store, core, driver, log } = parts;
  const queries = QueryThread.create({ databasePath: db.path, extensionPath, deadlinePath });
  let streams: SubscriptionThread | null = null;
  try {
    const certificate = api.tls === undefined ? null : new ApiCertificate(api.tls, log);
    streams = await SubscriptionThread.start({
      databasePath: db.path,
      deadlinePath,
      folder: db.subscriptions_path ?? join(dirname(db.path), "subscriptions"),
      watchCommits: () => store.watchCommits(),
      onNotice: (text) => log.warn?.("subscriptions", text),
    });
    const backend = createStoreBackend({
      store,
      queries,
      streams,
      health: () => healthOf(core, driver),
      onCommit: (commit) => driver.committed(commit),
      stamp: () => core.stamp(performance.now()),
      status: parts.status,
    });
    const bearerToken = api.authz?.["bearer-token"] ?? null;
    const endpointName = api.endpoint_name ?? null;
    const { onQuery } = parts;
    const server = new ApiServer({
      addresses: apiAddresses(api).map(splitHostPort),
      bearerToken,
      endpointName,
      certificate,
      backend,
      log,
      onQuery,
    });
    const bound = (await server.listen()).map(({ address, port }) => joinHostPort(address, port));
    const reading = streams;
    server.refreshCertificate();
    const looking = setInterval(() => server.refreshCertificate(), API_CERTIFICATE_PERIOD_MS);
    looking.unref();
    return {
      server,
      certificate,
      queries,
      streams,
      addresses: bound,
      close: async () => {
        clearInterval(looking);
        // Streams end by themselves never.
        await reading.close();
        await server.close();
        await queries.close();
      },
    };
  } catch (error) {
    await streams?.close();
    await queries.close();
    throw error;
  }
}

function healthOf(core: ReplicaCore, driver: ReplicaDriver): Health {
  return {
    gaps: missingVersions(core),
    members: core.swim.records.filter(({ state }) => state === "alive").length,
    p99LagSeconds: driver.lags.p99Seconds,
    queueSize: core.inboxSize,
  };
}
