/**
 * What the listeners of one data-plane thread are by the config: plain HTTP, and HTTPS where it is
 * asked for.
 */
import { splitHostPort } from "#base/host-port.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricWriter } from "#base/metric-slots.ts";
import type { PatinaConfig } from "../config.ts";
import { addressTest } from "./address-list.ts";
import type { ProcessLimits } from "./core/process-limits.ts";
import type { HttpListenerOptions, ListenSource } from "./http-listener.ts";
import type { TlsObserver } from "./tls-acceptor.ts";
import { TlsCertificates } from "./tls-certificates.ts";

/** What HTTPS needs besides the config. */
export interface ListenerSurroundings {
  readonly ticketKeys: Uint8Array;
  readonly limits: ProcessLimits;
  readonly metrics: MetricWriter;
  readonly log: Logger;
  /** Our name in Via. */
  readonly viaName: string;
  /** A connection was refused, or its handshake ended. */
  readonly onProgress: () => void;
}

/** The options of each listener, plain HTTP first. Throws `CERTIFICATE_UNREADABLE`. */
export function listenersOf(
  proxy: PatinaConfig["proxy"],
  fds: { readonly http: number | null; readonly https: number | null },
  { ticketKeys, limits, metrics, log, viaName, onProgress }: ListenerSurroundings,
): Omit<HttpListenerOptions, "engine">[] {
  const { tls, threads } = proxy;
  const sourceOf = (fd: number | null, address: string): ListenSource =>
    fd === null ? { ...splitHostPort(address), reusePort: threads > 1 } : { fd };
  const isBalancer = addressTest(proxy.proxy_protocol_from);
  const refusedHeaders = metrics.counter("patina_http_proxy_headers_refused_total");
  const shared = {
    preface:
      isBalancer === null
        ? undefined
        : {
            isFrom: isBalancer,
            limitMs: proxy.head_timeout_ms,
            onRefused: () => {
              refusedHeaders.add();
              onProgress();
            },
          },
    admission: {
      limits,
      isExempt: addressTest(proxy.trusted_proxies) ?? (() => false),
      onRefused: refusalCounter(metrics, onProgress),
      viaName,
    },
  };
  const plain = {
    ...shared,
    source: sourceOf(fds.http, proxy.http),
    redirectPort: tls.redirect_http ? tls.public_port : undefined,
  };
  if (tls.addr === undefined) return [plain];
  const minVersion = tls.min_version === "1.3" ? "TLSv1.3" : "TLSv1.2";
  const secure = {
    ...shared,
    source: sourceOf(fds.https, tls.addr),
    tls: {
      certificates: new TlsCertificates(tls.certificates, minVersion),
      minVersion,
      handshakeMs: proxy.head_timeout_ms,
      ticketKeys,
      observer: observerOf(metrics, onProgress),
      log,
    } as const,
    addedLines:
      tls.hsts_max_age_secs === 0
        ? ""
        : `strict-transport-security: max-age=${tls.hsts_max_age_secs}\r\n`,
  };
  return [plain, secure];
}

function refusalCounter(
  metrics: MetricWriter,
  onProgress: () => void,
): (limit: "client" | "all") => void {
  const name = "patina_http_connections_refused_total";
  const counters = {
    client: metrics.counter(name, { limit: "client" }),
    all: metrics.counter(name, { limit: "all" }),
  };
  return (limit) => {
    counters[limit].add();
    onProgress();
  };
}

function observerOf(metrics: MetricWriter, onProgress: () => void): TlsObserver {
  const full = metrics.counter("patina_tls_handshakes_total", { kind: "full" });
  const resumed = metrics.counter("patina_tls_handshakes_total", { kind: "resumed" });
  const failed = metrics.counter("patina_tls_handshakes_total", { kind: "failed" });
  const reloads = metrics.counter("patina_tls_reloads_failed_total");
  const expiry = metrics.gauge("patina_tls_certificate_expiry_seconds");
  return {
    handshakeDone: (isResumed) => {
      (isResumed ? resumed : full).add();
      onProgress();
    },
    handshakeFailed: () => {
      failed.add();
      onProgress();
    },
    reloadFailed: () => reloads.add(),
    expiryKnown: (expiresAtMs) => expiry.set(Math.floor(expiresAtMs / 1000)),
  };
}
