/**
 * Whom sync asks while versions of our own are in doubt: every member, each once before any is asked
 * again, and all in one round as far as its time goes. What left us last may have reached only one.
 */
import type { ActorId } from "../../types.ts";
import type { SyncPeer } from "./peer-choice.ts";
import type { Round } from "./round.ts";

/** Who has said what it knows of us. */
export class OwnLearning {
  #isOn = false;
  readonly #compared = new Set<ActorId>();
  /** Greatest head of ours that was reported as unknown to us. */
  #headReported = 0;

  get isOn(): boolean {
    return this.#isOn;
  }

  /** Off: everything is forgotten. */
  turn(isOn: boolean): void {
    this.#isOn = isOn;
    this.#compared.clear();
  }

  compared(peer: ActorId): void {
    this.#compared.add(peer);
  }

  /** Whether a server's `ownHead` of us is above `head`, and greater than any that was before. */
  isUnheardOf(ownHead: number, head: number): boolean {
    if (ownHead <= Math.max(head, this.#headReported)) return false;
    this.#headReported = ownHead;
    return true;
  }

  /** Of those that may be asked, the ones that have said nothing; all, if all have. */
  prefer(peers: readonly SyncPeer[]): readonly SyncPeer[] {
    if (!this.#isOn) return peers;
    const silent = peers.filter(({ actorId }) => !this.#compared.has(actorId));
    return silent.length > 0 ? silent : peers;
  }

  /** Whether a round is to go on with members that have said nothing. O(members). */
  wantsMore(peers: readonly SyncPeer[], round: Round, nowMs: number): boolean {
    if (!this.#isOn || nowMs >= round.startedMs + LEARNING_ROUND_MS) return false;
    return peers.some(({ actorId }) => !this.#compared.has(actorId) && !round.asked.has(actorId));
  }
}

/** As long as a recovery waits for the last member: one round must not keep it longer. */
const LEARNING_ROUND_MS = 10_000;
