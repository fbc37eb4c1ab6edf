/** Which event loops a process has, and how its watchdog is to judge each of them. */
import { splitHostPort } from "#base/host-port.ts";
import type { MetricSlotsPlan } from "#base/metric-slots.ts";
import type { LoopDeclaration, RestartBudget, WatchdogOptions } from "../watchdog/types.ts";
import type { PatinaConfig } from "./config.ts";
import type { EffectiveConfig } from "./effective-config.ts";
import { spareOf, type InheritedFds } from "./inherited-fds.ts";

/** Names of the loops, in the order of their banks of metrics. */
export function loopNames({ mode, config }: EffectiveConfig): readonly string[] {
  const extra = mode === "edge" ? config.proxy.threads - 1 : 0;
  return [
    "main",
    "replica",
    "store",
    ...Array.from({ length: extra }, (_, index) => `data-plane-${index + 1}`),
  ];
}

/** What the watchdog of a process is started with. */
export function watchdogOptionsOf(options: {
  readonly effective: EffectiveConfig;
  readonly fds: InheritedFds;
  readonly metrics: MetricSlotsPlan;
  readonly isServing: boolean;
  /** What peers say of their bounces. */
  readonly bounces: SharedArrayBuffer;
}): WatchdogOptions {
  const { effective, fds, metrics, isServing, bounces } = options;
  const { config, stateFolder, hash } = effective;
  const { watchdog, telemetry } = config;
  return {
    loops: loopNames(effective).map((name, at) => declarationOf(name, at, { effective, fds })),
    metrics,
    stateFolder,
    http: splitHostPort(telemetry.prometheus.addr),
    isServing,
    beatFd: fds.beat,
    budgets: {
      boot: watchdog.boot_ms,
      load: watchdog.boot_ms,
      apply: watchdog.apply_ms,
      steady: watchdog.steady_ms,
    },
    jitterMs: watchdog.jitter_ms,
    breadcrumbDecoderUrl: new URL("./breadcrumbs.ts", import.meta.url).href,
    configHash: hash,
    fleet: effective.mode === "edge" ? { budget: restartBudgetOf(config), bounces } : null,
  };
}

/** The fleet's restart budget. */
export function restartBudgetOf({ watchdog }: PatinaConfig): RestartBudget {
  return { peersMax: watchdog.fleet_bounces_max, windowMs: watchdog.fleet_window_ms };
}

/**
 * A statement is one turn of the store's loop, however large its author made it: a transaction of
 * 100,000 rows takes seconds, and killing the process would only make it start over. A data plane
 * that can be replaced is only reported.
 */
function declarationOf(
  name: string,
  at: number,
  { effective, fds }: { readonly effective: EffectiveConfig; readonly fds: InheritedFds },
): LoopDeclaration {
  if (name === "store") {
    const budgetMs = effective.config.watchdog.boot_ms;
    return { name, budgets: { steady: budgetMs, apply: budgetMs } };
  }
  const index = at - FIRST_DATA_PLANE;
  const isPlane = index >= 0 || (name === "main" && effective.mode === "edge");
  const plane = { name, countsProgress: isPlane };
  return index >= 0 && spareOf(fds, index) !== null ? { ...plane, action: "report" } : plane;
}

/** After main, replica and store. */
export const FIRST_DATA_PLANE = 3;
