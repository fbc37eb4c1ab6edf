/**
 * Puts a recovery between membership, books and sync of one replica: gives it what they know, and
 * has sync ask for versions of our own as long as it runs. Without a recovery it does nothing.
 */
import type { ActorId } from "../../types.ts";
import type { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import type { SyncClientInput } from "../sync/client-types.ts";
import { Recovery, type RecoveryConfig, type RecoveryInput } from "./recovery.ts";

/** What it stands between. */
export interface OwnVersionsOptions {
  readonly actorId: ActorId;
  /** Absent: own versions are sure. */
  readonly recovery: RecoveryConfig | undefined;
  readonly books: Bookkeeping;
  /** Active members to exchange state with. */
  readonly members: () => readonly ActorId[];
  readonly tellSync: (input: SyncClientInput, nowMs: number) => void;
  readonly emit: (output: OwnVersionsOutput) => void;
}

/** What it wants done by the driver. */
export type OwnVersionsOutput =
  /** Go on above `head` with versions of our own; answer with `settled`. */
  | { readonly kind: "settleOwnVersions"; readonly head: number }
  /** Have the next start take a new actor id, and end. */
  | { readonly kind: "renewIdentity" };

/** The own versions of one replica. */
export class OwnVersions {
  readonly #options: OwnVersionsOptions;
  readonly #recovery: Recovery | null;

  constructor(options: OwnVersionsOptions) {
    this.#options = options;
    this.#recovery = options.recovery ? new Recovery(options.recovery) : null;
  }

  /** Whether they are in doubt: nothing of our own may be committed. */
  get areInDoubt(): boolean {
    return this.#recovery?.isRunning ?? false;
  }

  /** See `Recovery`. */
  deadlineMs(): number {
    return this.#recovery?.deadlineMs() ?? Number.POSITIVE_INFINITY;
  }

  start(nowMs: number): void {
    if (!this.#recovery) return;
    this.#options.tellSync({ kind: "learnOwn", isOn: true }, nowMs);
    this.#run({ kind: "start" }, nowMs);
  }

  /** A server of sync said what it knows of us. */
  compared(server: { readonly peer: ActorId; readonly ownHead: number }, nowMs: number): void {
    this.#run({ kind: "compared", peer: server.peer, head: server.ownHead }, nowMs);
  }

  roundFinished(nowMs: number): void {
    if (this.areInDoubt) this.#run({ kind: "roundFinished", ...this.#present() }, nowMs);
  }

  tick(nowMs: number): void {
    if (this.areInDoubt) this.#run({ kind: "tick", ...this.#present() }, nowMs);
  }

  /** The answer to `settleOwnVersions`. */
  settled(isStored: boolean, nowMs: number): void {
    this.#run({ kind: "finished", isStored }, nowMs);
    if (!this.areInDoubt) this.#options.tellSync({ kind: "learnOwn", isOn: false }, nowMs);
  }

  #run(input: RecoveryInput, nowMs: number): void {
    if (!this.#recovery) return;
    const { actorId, books, tellSync, emit } = this.#options;
    this.#recovery.handle(input, nowMs);
    for (const output of this.#recovery.drain()) {
      switch (output.kind) {
        case "askAgain":
          tellSync({ kind: "hint" }, nowMs);
          break;
        case "finish":
          books.recordHead(actorId, output.head);
          emit({ kind: "settleOwnVersions", head: output.head });
          break;
        case "renew":
          emit({ kind: "renewIdentity" });
          break;
      }
    }
  }

  #present() {
    const { actorId, books, members } = this.#options;
    const partials = Array.from(books.partialVersions(actorId)).length;
    const missing = books.missingVersions(actorId) + partials;
    return { own: { head: books.head(actorId), missing }, members: members() };
  }
}
