/**
 * The watchdog's nouns: what a loop says about itself, what a stall leaves behind, and what the
 * owner of the process passes in. Everything here is plain data that crosses threads.
 */
import type { MetricSlotsPlan } from "#base/metric-slots.ts";

/** What a loop is doing; each phase has its own stall budget. */
export type LoopPhase = "boot" | "load" | "apply" | "steady" | "drain";

/** Longest silence of a loop in each phase, in milliseconds. */
export type StallBudgets = Readonly<Record<LoopPhase, number>>;

/**
 * What a proven stall of a loop leads to: `bounce` kills the process, `report` leaves evidence and
 * an alert and tells the owner through `onStall`, for a loop that can be replaced alone.
 */
export type StallAction = "bounce" | "report";

/** One event loop to be watched. Watched from its first `attach` until `leave`. */
export interface LoopDeclaration {
  /** Stable, bounded name: `main`, `data-plane-1`, `replica`, `store`. */
  readonly name: string;
  /** Default `bounce`. */
  readonly action?: StallAction;
  /**
   * It counts what it gets done (`LoopBeat.progress`), so that one that only turns is found too.
   * Default false.
   */
  readonly countsProgress?: boolean;
  /** Overrides of the budgets for this loop. */
  readonly budgets?: Partial<StallBudgets>;
}

/** Plain data that attaches a `LoopBeat` in the thread that runs the loop: pass as `workerData`. */
export interface LoopBeatPlan {
  readonly buffer: SharedArrayBuffer;
  /** Position of the loop in the declared order. */
  readonly loop: number;
}

/** A breadcrumb as read from shared memory. What it means is known to the decoder alone. */
export interface BreadcrumbRecord {
  /** 1 to 255, the owner's numbering. */
  readonly kind: number;
  /** A number that goes with it: a version, a count, a request number. */
  readonly value: number;
  /** At most 512 bytes; UTF-8 where it was given as text. */
  readonly bytes: Uint8Array;
  /** True where it was cut at the limit. */
  readonly isCut: boolean;
}

/**
 * A module that gives breadcrumbs their meaning. Loaded by the watchdog thread, so it must import
 * next to nothing. It must not throw; if it does, the raw record stands in the evidence.
 */
export interface BreadcrumbDecoder {
  /** Any JSON value. */
  decodeBreadcrumb(record: BreadcrumbRecord): unknown;
}

/** Kinds of alerts; each is also the event of its line in the log. */
export type AlertKind =
  /** The edge process ended unasked and is started again. */
  | "edge-bounced"
  /** It ends again and again before it is ready. */
  | "crash-loop"
  /** It serves from its last known table alone, by the fleet's restart budget. */
  | "edge-frozen"
  /** A loop that is replaced alone stalled, or ended by an exception. */
  | "loop-stalled"
  | "loop-crashed"
  | "certificate-expired"
  /** Changes arrive at the replica and are not applied. */
  | "replica-stuck"
  /** An upgrade came to nothing. */
  | "upgrade-rolled-back";

/** Something that a person must hear of. */
export interface Alert {
  readonly kind: AlertKind;
  /** What it is about: id of the evidence, path of a certificate; empty = there is but one. */
  readonly subject: string;
  readonly msg: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** One frame of a captured stack, innermost first. Lines and columns from 1. */
export interface StackFrame {
  readonly function: string;
  readonly url: string;
  readonly line: number;
  readonly column: number;
}

/** Where a loop stood when it was accused. */
export type StackEvidence =
  | { readonly kind: "javascript"; readonly frames: readonly StackFrame[] }
  /** No JavaScript could be interrupted: `reason` says why, `thread` what the kernel tells. */
  | { readonly kind: "native"; readonly reason: string; readonly thread: ThreadFacts | null };

/** What /proc tells of one thread; fields are absent where the kernel does not tell. */
export interface ThreadFacts {
  readonly threadId: number;
  readonly name?: string;
  /** One letter as in proc(5): R running, S sleeping, D in uninterruptible wait, T stopped. */
  readonly state?: string;
  /** Kernel function it waits in. */
  readonly waitChannel?: string;
  /** Number of the system call it is in, or `running`. */
  readonly systemCall?: string;
  readonly userMs?: number;
  readonly systemMs?: number;
}

/** A file of the `stalls` folder: everything known about one stall, crash or silence. */
export interface StallEvidence {
  readonly format: 1;
  /** Sorts by time; also the file name without `.json`. */
  readonly id: string;
  /** `stall` and `crash` are written inside the edge process, `silence` by its supervisor. */
  readonly kind: "stall" | "crash" | "silence";
  /** ISO 8601, UTC. */
  readonly time: string;
  readonly pid: number;
  /** Name of the loop; `edge` where the whole process fell silent. */
  readonly loop: string;
  readonly phase: LoopPhase | null;
  readonly action: StallAction;
  readonly budgetMs: number;
  readonly silentMs: number;
  /** Polls in a row that saw no beat. */
  readonly misses: number;
  /** The loop turned, as busy as can be, and nothing got anywhere for `silentMs`. Absent = false. */
  readonly isLivelock?: boolean;
  readonly stack: StackEvidence;
  /** Message of what was thrown, for a crash. */
  readonly error: string | null;
  /** The work in progress, decoded; null where the loop was between pieces of work. */
  readonly breadcrumb: unknown;
  /** The last ones, newest first, decoded; the one in progress included. */
  readonly lastBreadcrumbs: readonly unknown[];
  readonly loops: readonly LoopStatus[];
  /** Memory, file descriptors and threads of the process. Keys carry their units. */
  readonly resources: Readonly<Record<string, number>>;
  readonly threads: readonly ThreadFacts[];
  readonly configHash: string;
  /** Absent = the process has no budget, or its supervisor knows of none spent. */
  readonly fleet?: FleetBounces | undefined;
}

/** How a bounce stands to the fleet's restart budget. */
export interface FleetBounces {
  /** Peers bounced within the budget's window. */
  readonly peers: number;
  /** There were more than the budget has room for: the next start is to do without what stalls. */
  readonly isSpent: boolean;
}

/** A loop as it stands. */
export interface LoopStatus {
  readonly name: string;
  readonly isWatched: boolean;
  readonly phase: LoopPhase;
  readonly beats: number;
  readonly progress: number;
  readonly silentMs: number;
  readonly heapUsedBytes: number;
  readonly heapTotalBytes: number;
  readonly externalBytes: number;
  /** Share of time the loop was busy over its last second, 0 to 1. */
  readonly utilisation: number;
}

/** What `/readyz` answers. `details` stands in its body as it is: how far behind, since when. */
export interface ReadyState {
  readonly isReady: boolean;
  readonly reason: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** How to start the watchdog of a process. */
export interface WatchdogOptions {
  readonly loops: readonly LoopDeclaration[];
  /** Declared metrics of the process, allocated by the owner; null = the watchdog's own only. */
  readonly metrics: MetricSlotsPlan | null;
  /** Evidence goes to `<stateFolder>/stalls/`. */
  readonly stateFolder: string;
  /** Where /healthz, /readyz and /metrics are served; null = nowhere. Port 0 = any. */
  readonly http: { readonly host: string; readonly port: number } | null;
  /** False: the port is bound by `serve`, because another process has it still; default true. */
  readonly isServing?: boolean;
  /** Fd of the pipe to the supervisor (`PATINA_FDS.beat`); null = none. */
  readonly beatFd: number | null;
  readonly budgets?: Partial<StallBudgets>;
  /** Upper end of the random delay before an accusation; default 200. */
  readonly jitterMs?: number;
  /** `file:` URL of a module that is a `BreadcrumbDecoder`; null = raw records in the evidence. */
  readonly breadcrumbDecoderUrl: string | null;
  readonly configHash: string;
  /** Evidence files kept; default 20. */
  readonly stallFilesMax?: number;
  /** Longest wait for the stack of a thread that sleeps in native code, in ms; default 150. */
  readonly stackLimitMs?: number;
  /** The fleet's, and what peers say (`PeerBounces`); null = none. */
  readonly fleet?: FleetBudget | null;
}

/** How many peers may have been bounced lately before a bounce is more than the fleet can bear. */
export interface RestartBudget {
  /** Peers; 0 = no budget. */
  readonly peersMax: number;
  /** What "lately" is, in milliseconds. */
  readonly windowMs: number;
}

/** A budget with the memory that it is judged by. */
export interface FleetBudget {
  readonly budget: RestartBudget;
  readonly bounces: SharedArrayBuffer;
}

/** What a witness of a proven stall is sent before its consequence; it answers with any message. */
export interface LastWords {
  readonly loop: string;
  readonly action: StallAction;
  /** See `StallEvidence`. */
  readonly breadcrumb: unknown;
}

/** What the watchdog tells its owner; never relied on for a `bounce`. */
export interface WatchdogEvents {
  /** A loop with action `report` was proven stalled and its evidence is on disk. */
  onStall?(stall: { readonly loop: string; readonly id: string }): void;
}
