/** What the sync client takes, gives and can be told. */
import type { ActorId, ApplyOutcome, Changeset } from "../../types.ts";
import type { SessionMessage } from "./messages.ts";
import type { SyncPeer } from "./peer-choice.ts";

/** What happens to a sync client. Session ids are its own; unknown ones are ignored. */
export type SyncClientInput =
  /** All members of our cluster but ourselves; replaces the earlier list. */
  | { readonly kind: "candidates"; readonly peers: readonly SyncPeer[] }
  /** A gap or a newer head was learnt: the next round starts within `hintDelayMs`. */
  | { readonly kind: "hint" }
  | { readonly kind: "opened"; readonly sessionId: number }
  | { readonly kind: "openFailed"; readonly sessionId: number }
  | { readonly kind: "message"; readonly sessionId: number; readonly message: SessionMessage }
  /** The server's FIN, after all of its messages. */
  | { readonly kind: "finished"; readonly sessionId: number }
  /** The stream or its connection broke, or said something undecodable. */
  | { readonly kind: "broken"; readonly sessionId: number }
  /** The answer to `apply`, after the books have followed it. */
  | {
      readonly kind: "applied";
      readonly batchId: number;
      readonly outcomes: readonly ApplyOutcome[];
    }
  /** Whether our own versions are asked for like anybody's, and `compared` is said. */
  | { readonly kind: "learnOwn"; readonly isOn: boolean }
  | { readonly kind: "tick" };

/** What a sync client wants done. */
export type SyncClientOutput =
  /** Open a stream; answer with `opened` or `openFailed`. */
  | { readonly kind: "open"; readonly sessionId: number; readonly peer: SyncPeer }
  | { readonly kind: "send"; readonly sessionId: number; readonly message: SessionMessage }
  /** End our direction after what was sent. */
  | { readonly kind: "finish"; readonly sessionId: number }
  /** Give up both directions; nothing more is heard or said of the session. */
  | { readonly kind: "abort"; readonly sessionId: number }
  /** Apply in order; answer with `applied`. */
  | {
      readonly kind: "apply";
      readonly batchId: number;
      readonly changesets: readonly Changeset[];
    }
  /** A server said that it knows of our versions up to `ownHead`; only while `learnOwn`. */
  | { readonly kind: "compared"; readonly peer: ActorId; readonly ownHead: number }
  /** A server's hybrid clock, for the merge. */
  | { readonly kind: "clock"; readonly ts: bigint }
  /** Stop (or go on) taking frames of all client sessions: the store is behind. */
  | { readonly kind: "reading"; readonly isPaused: boolean }
  | { readonly kind: "notify"; readonly event: SyncClientEvent };

/** Facts for log and metrics. */
export type SyncClientEvent =
  | {
      readonly kind: "roundFinished";
      readonly servers: number;
      readonly receivedVersions: number;
      readonly appliedVersions: number;
      readonly refused: number;
      readonly durationMs: number;
    }
  /**
   * A version came and could not be taken, for the so-manieth time: after some it is asked for again
   * at long pauses only.
   */
  | {
      readonly kind: "refused";
      readonly actorId: ActorId;
      readonly version: number;
      readonly reason: string;
      readonly times: number;
    }
  | { readonly kind: "sessionEnded"; readonly peer: SyncPeer; readonly reason: SessionEnd }
  /**
   * A server knows of versions of ours up to `ownHead`, which we never gave out as far as we know:
   * numbers are being used twice. Said once for each greater `ownHead`.
   */
  | {
      readonly kind: "ownVersionsUnknown";
      readonly peer: SyncPeer;
      readonly ownHead: number;
      readonly head: number;
    };

/** Why a session ended. */
export type SessionEnd =
  | "done"
  | "nothing needed"
  | "rejected: maxConcurrencyReached"
  | "rejected: differentCluster"
  | "open failed"
  | "broken"
  | "timed out"
  | "protocol violated";

/** Plain counters since the start. */
export interface SyncClientStats {
  rounds: number;
  sessions: number;
  sessionsFailed: number;
  /** Of these, sessions that ended before the server had said what it has. */
  handshakesFailed: number;
  /** Servers that said what they have. */
  serversCompared: number;
  /** Needs in requests sent: a range of versions, or a version in part. */
  needsSent: number;
  /** Column changes in answers; an Empty counts as one. */
  changesReceived: number;
  versionsAsked: number;
  versionsReceived: number;
  /** Answers that were known already, or not asked for. */
  changesetsDropped: number;
  changesetsRefused: number;
  /** Answers with something in them that nothing here can hold. */
  changesetsUnreadable: number;
}

/** Counters at zero. */
export function createSyncClientStats(): SyncClientStats {
  return {
    rounds: 0,
    sessions: 0,
    sessionsFailed: 0,
    handshakesFailed: 0,
    serversCompared: 0,
    needsSent: 0,
    changesReceived: 0,
    versionsAsked: 0,
    versionsReceived: 0,
    changesetsDropped: 0,
    changesetsRefused: 0,
    changesetsUnreadable: 0,
  };
}
