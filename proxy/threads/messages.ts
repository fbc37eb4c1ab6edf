/** What the threads of one process say to each other; plain data and ports. */
import type { MessagePort } from "node:worker_threads";
import type { MetricSlotsPlan } from "#base/metric-slots.ts";
import type { EdgeQuestion } from "../../replica/replica.ts";
import type { ActorId } from "../../replica/types.ts";
import type { LoadPlan } from "../../routing/core/load-slots.ts";
import type { ChangeName, QuarantineState } from "../../routing/core/quarantine.ts";
import type { HeldChange } from "./notice-desk.ts";
import type { LoopBeatPlan } from "../../watchdog/types.ts";
import type { ListenFds } from "../data-plane.ts";
import type { EffectiveConfig } from "../effective-config.ts";
import type { ProcessLimitsPlan } from "../listeners/core/process-limits.ts";

/** What every thread gets as `workerData`. */
export interface ThreadData {
  /** Name of the thread's loop. */
  readonly loop: string;
  readonly effective: EffectiveConfig;
  readonly metrics: MetricSlotsPlan;
  /** The thread's own bank of metrics. */
  readonly bank: number;
  readonly beat: LoopBeatPlan;
  /** Of the `LogLevelCell` that all threads share. */
  readonly logLevel: SharedArrayBuffer;
}

/** What the replica thread gets. */
export interface ReplicaThreadData extends ThreadData {
  readonly storePort: MessagePort;
  /** Where the watchdog tells of stalls; null for an agent. */
  readonly witnessPort: MessagePort | null;
  /** What peers say of their bounces is written here. */
  readonly bounces: SharedArrayBuffer;
}

/** What a data-plane thread gets. */
export interface DataPlaneThreadData extends ThreadData {
  readonly storePort: MessagePort;
  /** Requests in flight; what is this thread's own is taken out if it ends alone. */
  readonly load: LoadPlan;
  /** What else it counts with the others, likewise. */
  readonly limits: ProcessLimitsPlan;
  readonly fds: ListenFds;
  /** Of TLS session tickets, the same in all threads. */
  readonly ticketKeys: Uint8Array;
  readonly quarantine: QuarantineState;
}

/** What is learnt of other hosts, for every routing table. */
export type HostNews =
  | { readonly kind: "rtt"; readonly actorId: ActorId; readonly rttMs: number }
  | { readonly kind: "host"; readonly actorId: ActorId; readonly isDown: boolean }
  | NoticeNews;

/** A change, by its hash, has stalled the edge with this actor id; believed until it expires. */
export interface NoticeNews {
  readonly kind: "notice";
  readonly actorId: ActorId;
  readonly hash: string;
  /** Unix milliseconds; 0 = it takes its word back. */
  readonly expiresMs: number;
}

/** The operator has a change applied that waits. */
export interface WaitingRelease {
  readonly kind: "releaseWaiting";
  readonly id: string;
}

/** What is kept out of every routing table; with `isRefeed`, all rows are to come again. */
export interface QuarantineNews {
  readonly kind: "quarantine";
  readonly state: QuarantineState;
  readonly isRefeed: boolean;
}

/** What the replica thread tells the main thread. */
export type ReplicaThreadEvent =
  | HostNews
  | { readonly kind: "started"; readonly gossip: string; readonly api: string }
  /** Nothing is known to be missing any more; also said when there is nobody to learn from. */
  | { readonly kind: "synced" }
  /** Nothing can be written, and that lasts; null = it can be again. */
  | { readonly kind: "storeFault"; readonly reason: string | null }
  /** Asked on the admin socket; answered by `answer` with the same id. */
  | { readonly kind: "ask"; readonly id: number; readonly question: EdgeQuestion }
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  | { readonly kind: "stopped" };

/** What a data-plane thread tells the main thread. */
export type DataPlaneThreadEvent =
  | { readonly kind: "listening"; readonly port: number }
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  /** The store is no longer needed: the table stays as it is. */
  | { readonly kind: "detached" }
  | { readonly kind: "drained"; readonly cut: number };

/** What the main thread tells the others. */
export type ThreadCommand =
  | HostNews
  | { readonly kind: "ready" }
  | QuarantineNews
  | WaitingRelease
  /** To the replica thread: what is held since this start, and when the bounce before it was. */
  | {
      readonly kind: "held";
      readonly changes: readonly HeldChange[];
      readonly bouncedMs: number | null;
    }
  /** To the replica thread: an operator has a change applied that was held. */
  | { readonly kind: "released"; readonly change: ChangeName }
  /** Schema files (replica thread) and certificates (data planes) may be others. */
  | { readonly kind: "reload" }
  /** To the replica thread: plain data; null = there is no table. */
  | { readonly kind: "answer"; readonly id: number; readonly value: unknown }
  /** To data planes: leave the store, answered by `detached`; follow another one. */
  | { readonly kind: "detach" }
  | { readonly kind: "attach"; readonly storePort: MessagePort }
  /** Data plane: drain; replica: stop, and leave the cluster if `leave`. */
  | { readonly kind: "stop"; readonly deadlineMs: number; readonly leave: boolean };
