/**
 * Subscriptions and updates as the HTTP API sees them: streams of lines from a thread of their own.
 *
 * The thread costs some 20 MB. It is started when somebody opens the first stream, or at once where
 * an earlier run kept subscriptions; and anew, at the next stream, when it was lost.
 */
import { readdirSync } from "node:fs";
import { errorText } from "#base/errors.ts";
import type { CommitWatch } from "../store/commit-watchers.ts";
import { subscriptionError } from "./errors.ts";
import { SubscriptionLane, type LineStream } from "./subscription-lane.ts";
import {
  DEFAULT_LIMITS,
  type StreamTarget,
  type SubscriptionFilter,
  type SubscriptionLimits,
  type SubscriptionView,
} from "./subscription-messages.ts";

/** Where to read, and within which limits. */
export interface SubscriptionThreadOptions {
  /** The store's database file; it exists. */
  readonly databasePath: string;
  /** The extension that ends SQL when its time is up. */
  readonly deadlinePath: string;
  /** Folder of the kept subscriptions; made when missing. */
  readonly folder: string;
  /** See `StoreClient.watchCommits`. */
  readonly watchCommits: () => Promise<CommitWatch>;
  readonly limits?: Partial<SubscriptionLimits>;
  /** Something that an operator may want to know. */
  readonly onNotice: (text: string) => void;
}

/** Opens streams. */
export class SubscriptionThread {
  readonly #options: SubscriptionThreadOptions;
  #lane: SubscriptionLane | null = null;
  #starting: Promise<SubscriptionLane> | null = null;
  #isClosed = false;

  private constructor(options: SubscriptionThreadOptions) {
    this.#options = options;
  }

  /** Restores what was kept, if anything was; what cannot be is told to `onNotice`. */
  static async start(options: SubscriptionThreadOptions): Promise<SubscriptionThread> {
    const thread = new SubscriptionThread(options);
    try {
      if (hasKept(options.folder)) await thread.#running();
    } catch (error) {
      options.onNotice(`subscriptions are not restored: ${errorText(error)}`);
    }
    return thread;
  }

  /** Streams that are open. */
  get streamCount(): number {
    return this.#lane?.streamCount ?? 0;
  }

  /** Of these, those that tell of a table's updates. */
  get updatesCount(): number {
    return this.#lane?.updatesCount ?? 0;
  }

  /**
   * Opens a stream. Rejects with `SUBSCRIPTION_QUERY`, `SUBSCRIPTION_TABLE`, `SUBSCRIPTION_FROM`,
   * `SUBSCRIPTION_UNKNOWN`, `SUBSCRIPTION_BUSY`, `SUBSCRIPTION_LOST`, `STORE_SQL`,
   * `STORE_TIMEOUT`, or whatever keeps the database from being read.
   */
  async open(target: StreamTarget): Promise<LineStream> {
    const lane = await this.#running();
    return lane.open(target);
  }

  /** Shows subscriptions, as `SubscriptionDesk.views`; none where no thread runs. */
  async views(filter: SubscriptionFilter): Promise<readonly SubscriptionView[]> {
    await Promise.allSettled([this.#starting]);
    if (this.#lane === null || this.#lane.isOver) return [];
    return this.#lane.views(filter);
  }

  /** Ends every stream in order, keeps what is subscribed to, and ends the thread. */
  async close(): Promise<void> {
    this.#isClosed = true;
    // One that is being started is ended as soon as it is there.
    await Promise.allSettled([this.#starting]);
    await this.#lane?.close();
  }

  #running(): Promise<SubscriptionLane> {
    if (this.#isClosed) {
      const error = subscriptionError("SUBSCRIPTION_LOST", "the replica is stopping");
      return Promise.reject(error);
    }
    if (this.#lane !== null && !this.#lane.isOver) return Promise.resolve(this.#lane);
    this.#starting ??= this.#start().finally(() => (this.#starting = null));
    return this.#starting;
  }

  async #start(): Promise<SubscriptionLane> {
    const { databasePath, deadlinePath, folder, limits, watchCommits, onNotice } = this.#options;
    this.#lane = await SubscriptionLane.start({
      databasePath,
      deadlinePath,
      folder,
      commits: await watchCommits(),
      limits: { ...DEFAULT_LIMITS, ...limits },
      onNotice,
    });
    return this.#lane;
  }
}

function hasKept(folder: string): boolean {
  try {
    return readdirSync(folder).length > 0;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
}
