/** What the watchdog thread and its owner say to each other. Never needed for a bounce. */
import type { MessagePort } from "node:worker_threads";
import type { MetricSlotsPlan } from "#base/metric-slots.ts";
import type { FleetBudget, ReadyState, StallAction, StallBudgets } from "../types.ts";

/** A declared loop with every default filled in. */
export interface WatchedLoop {
  readonly name: string;
  readonly action: StallAction;
  readonly budgets: StallBudgets;
  readonly countsProgress: boolean;
}

/** `workerData` of the watchdog thread. */
export interface WatchdogThreadData {
  readonly loops: readonly WatchedLoop[];
  readonly loopBuffer: SharedArrayBuffer;
  readonly ownMetrics: MetricSlotsPlan;
  readonly metrics: MetricSlotsPlan | null;
  readonly stateFolder: string;
  readonly http: { readonly host: string; readonly port: number } | null;
  /** Whether that is served from the start on. */
  readonly isServing: boolean;
  readonly beatFd: number | null;
  readonly jitterMs: number;
  readonly breadcrumbDecoderUrl: string | null;
  readonly configHash: string;
  readonly stallFilesMax: number;
  readonly stackLimitMs: number;
  readonly fleet: FleetBudget | null;
}

/** Owner to thread. */
export type ToWatchdogThread =
  | { readonly kind: "ready"; readonly state: ReadyState }
  | { readonly kind: "action"; readonly loop: number; readonly action: StallAction }
  /** Bind the health port, answered by `started` or `failed`; give it up, by `unserved`. */
  | { readonly kind: "serve" | "unserve" }
  /** Who is told of a stall before its consequence. */
  | { readonly kind: "witness"; readonly port: MessagePort }
  | { readonly kind: "stop" };

/** Thread to owner. */
export type FromWatchdogThread =
  /** `port` is null where nothing is served. */
  | { readonly kind: "started"; readonly port: number | null }
  | { readonly kind: "unserved" }
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  | { readonly kind: "stall"; readonly loop: string; readonly id: string };
