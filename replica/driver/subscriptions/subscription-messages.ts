/**
 * What the thread of subscriptions and its owner say to each other.
 *
 * Each stream of lines is a reader with a number of its owner's. Opening is answered by `opened` or
 * `refused`, then `chunk`s of whole lines follow as far as the reader has credit, and `end` last.
 */
import type { CommitWatch } from "../store/commit-watchers.ts";
import type { ErrorRecord } from "../store/errors.ts";

/** What the thread is made with. */
export interface SubscriptionWorkerOptions {
  /** The store's database file; it exists. */
  readonly databasePath: string;
  /** The extension that ends SQL when its time is up. */
  readonly deadlinePath: string;
  /** Folder of the kept subscriptions; made when missing. */
  readonly folder: string;
  /** From `StoreClient.watchCommits`; its port is transferred. */
  readonly commits: CommitWatch;
  readonly limits: SubscriptionLimits;
}

/** Limits; all in `DEFAULT_LIMITS`. */
export interface SubscriptionLimits {
  /** A subscription without readers is removed after so long. */
  readonly idleMs: number;
  /** Time of a query's first run, and the most that any run takes. */
  readonly queryMsMax: number;
  /** Changes that can be replayed, at least. */
  readonly retainedChanges: number;
  /** Characters that wait for a reader before it is dropped. */
  readonly waitingMax: number;
  /** Characters on their way to a reader. */
  readonly creditMax: number;
  readonly subscriptionsMax: number;
}

/** What a reader wants to read. */
export type StreamTarget =
  /** The changes of one table's rows. */
  | { readonly kind: "updates"; readonly table: string }
  /** A query's rows and changes, by its text with values in place of parameters. */
  | ({ readonly kind: "query"; readonly sql: string } & ResumePoint)
  /** The same by the subscription's id (hyphenated UUID). */
  | ({ readonly kind: "id"; readonly queryId: string } & ResumePoint);

/** Where a reader of a query starts. */
export interface ResumePoint {
  /** Changes after this id, without rows; 0 = rows, and null likewise. */
  readonly from: number | null;
  /** Changes after the present, without rows. */
  readonly skipRows: boolean;
}

/** Which subscriptions are shown: the one of a hash, else of an id; both null = all. */
export interface SubscriptionFilter {
  readonly hash: string | null;
  readonly id: string | null;
}

/** A subscription for those who run the replica. */
export interface SubscriptionView {
  readonly id: string;
  readonly hash: string;
  readonly sql: string;
  /** Folder of its file. */
  readonly folder: string;
  /** 0 = no change yet. */
  readonly lastChangeId: number;
  readonly readers: number;
  /** Time spent on refreshing it, in ms of each second, over about the last minute. */
  readonly msPerSecond: number;
  /** Per table, the SQL that reads anew what a changed row makes a difference to. */
  readonly statements: readonly { readonly table: string; readonly sql: string }[];
}

/** To the thread. */
export type SubscriptionRequest =
  | { readonly kind: "open"; readonly readerId: number; readonly target: StreamTarget }
  /** So many characters were taken. */
  | { readonly kind: "credit"; readonly readerId: number; readonly size: number }
  /** The reader is gone; nothing more is sent to it. */
  | { readonly kind: "leave"; readonly readerId: number }
  /** Show subscriptions; answered by `views` with the same number. */
  | { readonly kind: "view"; readonly askId: number; readonly filter: SubscriptionFilter }
  /** Ends every reader, closes the files, ends the thread. */
  | { readonly kind: "close" };

/** From the thread. */
export type SubscriptionEvent =
  /** Once: the database could be opened. */
  | { readonly kind: "ready" }
  /** Once instead: it could not. */
  | { readonly kind: "broken"; readonly error: ErrorRecord }
  | {
      readonly kind: "opened";
      readonly readerId: number;
      readonly queryId: string;
      /** 16 hexadecimal digits; null for updates. */
      readonly queryHash: string | null;
    }
  | { readonly kind: "refused"; readonly readerId: number; readonly error: ErrorRecord }
  /** Whole lines, each with its line feed. */
  | { readonly kind: "chunk"; readonly readerId: number; readonly text: string }
  | { readonly kind: "end"; readonly readerId: number }
  | {
      readonly kind: "views";
      readonly askId: number;
      readonly views: readonly SubscriptionView[];
    }
  /** Something that an operator may want to know: a subscription was given up. */
  | { readonly kind: "notice"; readonly text: string };

/** Corrosion's, where it has them. */
export const DEFAULT_LIMITS: SubscriptionLimits = {
  idleMs: 600_000,
  queryMsMax: 15_000,
  retainedChanges: 500,
  // A few seconds of a busy stream; a thousand such readers would still fit.
  waitingMax: 4 * 1024 * 1024,
  creditMax: 256 * 1024,
  // Each has a file open.
  subscriptionsMax: 512,
};
