/**
 * The half of a process that two processes cannot share: the database with its worker, and the
 * replica with its gossip port, API and admin socket. It is opened and closed as one, because at an
 * upgrade one process gives it up and another one takes it, while both serve requests.
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker, type MessagePort } from "node:worker_threads";
import { PatinaError } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricWriter } from "#base/metric-slots.ts";
import { CheckpointKeeper } from "../replica/driver/checkpoints/checkpoint-keeper.ts";
import { StoreFaultWatch } from "../replica/driver/store-fault.ts";
import { StoreClient } from "../replica/driver/store/store-client.ts";
import {
  dropSubscriptions,
  replacedPath,
  takeStaged,
} from "../replica/driver/store/staged-database.ts";
import { startStore, type StoreThread } from "../replica/driver/store/store-thread.ts";
import { readSchemaFiles } from "./schema-sources.ts";
import { stopThread } from "./threads/data-plane-threads.ts";
import type {
  ReplicaThreadData,
  ReplicaThreadEvent,
  ThreadCommand,
  ThreadData,
} from "./threads/messages.ts";

/** What it is made of. */
export interface ReplicaSideOptions {
  readonly replica: ThreadData;
  /** Where the watchdog tells the replica thread of stalls; null for an agent. */
  readonly witnessPort: MessagePort | null;
  /** See `PeerBounces`. */
  readonly bounces: SharedArrayBuffer;
  readonly store: Pick<ThreadData, "beat">;
  readonly events: ReplicaSideEvents;
  readonly log: Logger;
  readonly metrics: MetricWriter;
}

/** What it tells while it is open. */
export interface ReplicaSideEvents {
  event(event: ReplicaThreadEvent): void;
  /** A thread ended by an exception, which was thrown in the loop of that name. */
  crashed(loop: string, error: unknown): void;
  /** The process cannot go on. */
  failed(error: unknown): void;
}

/** An open store with its replica. */
export class ReplicaSide {
  /** Settles when gossip, API and admin socket are served. */
  readonly started: Promise<void>;
  readonly #options: ReplicaSideOptions;
  readonly #store: StoreThread;
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  readonly #checkpoints: CheckpointKeeper;
  /** The main data plane's connection to the store. */
  readonly client: StoreClient;
  #isClosing = false;

  private constructor(
    options: ReplicaSideOptions,
    opened: {
      readonly store: StoreThread;
      readonly client: StoreClient;
      readonly checkpoints: CheckpointKeeper;
    },
  ) {
    const { store, client, checkpoints } = opened;
    this.#options = options;
    this.#store = store;
    this.client = client;
    this.#checkpoints = checkpoints;
    const { events } = options;
    store.onFailure((error) => this.#fail(error));
    const storePort = store.connect();
    const { witnessPort, bounces } = options;
    const data: ReplicaThreadData = { ...options.replica, storePort, witnessPort, bounces };
    const worker = new Worker(new URL("./threads/replica-thread.ts", import.meta.url), {
      name: "replica",
      workerData: data,
      transferList: witnessPort === null ? [storePort] : [storePort, witnessPort],
      resourceLimits: { maxYoungGenerationSizeMb: REPLICA_YOUNG_GENERATION_MIB },
    });
    this.#worker = worker;
    this.#ended = new Promise((resolve) => worker.once("exit", () => resolve()));
    const { promise: started, resolve } = Promise.withResolvers<void>();
    this.started = started;
    worker.on("message", (event: ReplicaThreadEvent) => {
      if (event.kind === "started") resolve();
      if (event.kind === "synced") checkpoints.start();
      if (event.kind !== "failed" || !this.#isClosing) events.event(event);
    });
    // A thread that ends unasked ends the process, with evidence of the exception that ended it.
    worker.on("error", (error) => {
      events.crashed("replica", error);
      this.#fail(error);
    });
    worker.on("exit", (code) => {
      this.#fail(new PatinaError("INTERNAL", `the replica thread ended with code ${code}`));
    });
  }

  /**
   * Opens the database, which a replica without one takes from a checkpoint, and starts the replica.
   * Rejects as `startStore` does.
   */
  static async open(options: ReplicaSideOptions): Promise<ReplicaSide> {
    const { config, extensionPath, deadlinePath } = options.replica.effective;
    if (takeStaged(config.db.path)) {
      const text = "the database that was made ready beside it took its place";
      const { path, subscriptions_path } = config.db;
      dropSubscriptions(subscriptions_path ?? join(dirname(path), "subscriptions"));
      options.log.warn?.("database-replaced", text, { before: replacedPath(config.db.path) });
    }
    const checkpoints = new CheckpointKeeper({
      databasePath: config.db.path,
      clusterId: config.gossip.cluster_id,
      config: config.checkpoints,
      metrics: options.metrics,
      log: options.log,
    });
    await checkpoints.boot();
    const storeOptions = {
      path: config.db.path,
      extensionPath,
      deadlinePath,
      nodeId: config.replica.node,
      synchronous: config.db.synchronous,
      schemaFiles: readSchemaFiles(config.db.schema_paths),
    };
    const store = await openStore(storeOptions, options);
    const client = await StoreClient.connect(store.connect());
    return new ReplicaSide(options, { store, client, checkpoints });
  }

  /** A new connection to the store. */
  connect(): MessagePort {
    return this.#store.connect();
  }

  /** Tells the replica thread. */
  tell(command: ThreadCommand): void {
    this.#worker.postMessage(command);
  }

  /** Stops the replica, and closes the database; whoever follows the store has left it before. */
  async close(options: { readonly deadlineMs: number; readonly leave: boolean }): Promise<void> {
    this.#isClosing = true;
    await this.#checkpoints.stop();
    await stopThread({ worker: this.#worker, ended: this.#ended }, options);
    this.client.close();
    await this.#store.close();
  }

  #fail(error: unknown): void {
    if (!this.#isClosing) this.#options.events.failed(error);
  }
}

/**
 * Opens the store. One that is there and cannot be written is waited for: without a write it cannot be
 * opened safely (`run-marks.ts`), and a process that ends and starts again gains nothing, while this
 * one goes on serving by the last known table.
 */
async function openStore(
  storeOptions: Parameters<typeof startStore>[0],
  { log, events, store }: ReplicaSideOptions,
): Promise<StoreThread> {
  const { path } = storeOptions;
  const isThere = existsSync(path);
  const fault = new StoreFaultWatch({
    db: { path },
    log,
    events: { storeFault: (reason) => events.event({ kind: "storeFault", reason }) },
  });
  for (;;) {
    try {
      const opened = await startStore(storeOptions, {
        entry: new URL("./threads/store-thread.ts", import.meta.url),
        workerData: { beat: store.beat },
      });
      fault.take(null, performance.now());
      return opened;
    } catch (error) {
      const isFull = error instanceof PatinaError && error.code === "STORE_FULL";
      if (!isFull || !isThere) throw error;
      fault.take(error, performance.now());
    }
    await sleep(ROOM_CHECK_MS);
  }
}

/** As often as a running store looks whether there is room again. */
const ROOM_CHECK_MS = 1_000;
/**
 * Messages of a repair are garbage as soon as the store has them: V8's default lets three times
 * 16 MiB pile up before it looks (docs/performance.md).
 */
const REPLICA_YOUNG_GENERATION_MIB = 12;
