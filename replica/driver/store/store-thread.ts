/**
 * Starts the store worker and hands out ports to it. Any thread that holds a port may make a
 * `StoreClient` of it; ports are transferable.
 */
import type { MessagePort } from "node:worker_threads";
import { MessageChannel, Worker } from "node:worker_threads";
import { recordToError, storeError, toStoreError } from "./errors.ts";
import type { StoreOptions } from "./store.ts";
import type { StoreThreadEvent, StoreThreadMessage } from "./store-worker.ts";

/** A running store worker, in the thread that started it. */
export interface StoreThread {
  /** A new port for `StoreClient.connect`, here or in another thread (transfer it). */
  connect(): MessagePort;
  /** Closes the database and ends the thread. Idempotent. */
  close(): Promise<void>;
  /** Called once if the thread ends without `close`; a bug or an abort of the extension. */
  onFailure(listener: (error: Error) => void): void;
}

/** How the thread is started, for an owner that wraps it. */
export interface StoreThreadOptions {
  /** A module that does something of its own and then imports `store-worker.ts`. */
  readonly entry?: URL;
  /** Added to the worker's data, for that module. */
  readonly workerData?: Readonly<Record<string, unknown>>;
}

/**
 * Starts the worker; resolves when the database is open. Rejects with `STORE_LOCKED`,
 * `STORE_EXTENSION`, `STORE_IDENTITY`, `STORE_SCHEMA`, `STORE_CORRUPT` or `STORE_FULL`.
 */
export async function startStore(
  options: StoreOptions,
  thread: StoreThreadOptions = {},
): Promise<StoreThread> {
  const worker = new Worker(thread.entry ?? new URL("./store-worker.ts", import.meta.url), {
    name: "store",
    workerData: { ...options, ...thread.workerData },
    // Not the parent's: `node --eval` would pass its flags on.
    execArgv: [],
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
  });
  const listeners: ((error: Error) => void)[] = [];
  let failure: Error | null = null;
  let isClosing = false;
  const fail = (error: Error): void => {
    if (isClosing || failure !== null) return;
    failure = error;
    for (const listener of listeners) listener(error);
  };
  const exited = new Promise<void>((resolve) => {
    worker.once("exit", (code) => {
      fail(storeError("STORE_CLOSED", `the store's thread ended with code ${code}`));
      resolve();
    });
  });
  worker.on("error", (thrown) => fail(toStoreError(thrown, "STORE_CLOSED")));
  await new Promise<void>((resolve, reject) => {
    listeners.push(reject);
    worker.once("message", (event: StoreThreadEvent) => {
      if (event.kind !== "failed") return resolve();
      isClosing = true;
      return reject(recordToError(event.error));
    });
  });
  listeners.length = 0;
  const tell = (message: StoreThreadMessage, ports: MessagePort[]): void =>
    worker.postMessage(message, ports);
  return {
    connect: () => {
      const { port1, port2 } = new MessageChannel();
      tell({ kind: "connect", port: port1 }, [port1]);
      return port2;
    },
    close: async () => {
      if (!isClosing) tell({ kind: "close" }, []);
      isClosing = true;
      await exited;
    },
    onFailure: (listener) => {
      if (failure === null) listeners.push(listener);
      else listener(failure);
    },
  };
}

/**
 * Changes on their way to the disk are garbage soon: V8's default lets three times 16 MiB of it pile
 * up before it looks. Measured without a cost in CPU (docs/performance.md).
 */
const YOUNG_GENERATION_MIB = 12;
