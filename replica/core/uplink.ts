/**
 * The byte budget of one replica's uplink, for everything that it sends: broadcast, sync, SWIM.
 *
 *   SWIM                 never waits, and is counted
 *   urgent changes       may borrow one second of the budget
 *   other broadcasts     wait until nothing is owed
 *   answers of sync      wait until nothing is owed, and have a share that they never exceed
 *
 * One bucket holds all of it, a second one the share of sync: who catches up gets what the share
 * gives, however much it asks, and a machine that goes down is told of at once meanwhile. Counted are
 * the bytes of messages. What QUIC adds (headers, acknowledgements, repeats) is some percent more.
 */
import type { SessionMessage } from "./sync/messages.ts";
import { TokenBucket } from "./broadcast/token-bucket.ts";
import { wireBytes } from "./wire/encoded-changeset.ts";

/** What may be sent. */
export interface UplinkConfig {
  /** Over all peers; also the burst. */
  readonly bytesPerSecond: number;
  /** Of these, what sync may take: from 0 to 1. */
  readonly syncShare: number;
}

/** Message bytes since the start, by what they are for. Those of broadcasts are counted there. */
export interface UplinkStats {
  swimBytes: number;
  syncBytes: number;
  /** Times that sync had to wait. */
  syncHeldBack: number;
}

/** The budget as all senders of a replica see it. */
export class Uplink {
  /** For the broadcast machine, which asks it and takes from it by itself. */
  readonly bucket: TokenBucket;
  readonly stats: UplinkStats = { swimBytes: 0, syncBytes: 0, syncHeldBack: 0 };
  readonly #share: TokenBucket;

  constructor({ bytesPerSecond, syncShare }: UplinkConfig) {
    this.#share = new TokenBucket(bytesPerSecond * syncShare);
    // A large answer of sync must not keep an urgent change for the seconds that it takes to repay.
    this.bucket = new TokenBucket(bytesPerSecond, (nowMs) => this.#share.owed(nowMs));
  }

  /** Counts a packet of SWIM. */
  tookSwim(bytes: number): void {
    this.stats.swimBytes += bytes;
    this.bucket.take(bytes);
  }

  /** Counts what sync sends, in either role. */
  tookSync(message: SessionMessage): void {
    const bytes = estimateMessageBytes(message);
    this.stats.syncBytes += bytes;
    this.bucket.take(bytes);
    this.#share.take(bytes);
  }

  /** Whether sync may answer more. */
  isOpenForSync(nowMs: number): boolean {
    const isOpen = this.#share.isOpen(nowMs) && this.bucket.isOpen(nowMs);
    if (!isOpen) this.stats.syncHeldBack += 1;
    return isOpen;
  }

  /** When sync may answer more, if nothing is taken. */
  opensForSyncAtMs(): number {
    return Math.max(this.#share.opensAtMs(), this.bucket.opensAtMs());
  }
}

/** About what a message of a sync session takes on the wire. */
function estimateMessageBytes(message: SessionMessage): number {
  switch (message.kind) {
    case "changesets":
      return message.changesets.reduce((sum, one) => sum + wireBytes(one), 0);
    case "state": {
      const { heads, need, partialNeed } = message.state;
      return ACTOR_BYTES * (heads.size + need.size + partialNeed.size) + CONTROL_BYTES;
    }
    case "request":
      return message.requests.reduce(
        (sum, { needs }) => sum + ACTOR_BYTES + NEED_BYTES * needs.length,
        CONTROL_BYTES,
      );
    case "start":
    case "clock":
    case "rejection":
    case "unreadable":
      return CONTROL_BYTES;
  }
}

/** An id and a number or a range. */
const ACTOR_BYTES = 32;
const NEED_BYTES = 24;
/** Tags, ids and stamps of what says little else. */
const CONTROL_BYTES = 32;
