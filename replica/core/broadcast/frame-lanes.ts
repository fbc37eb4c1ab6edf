/**
 * Sends frames to peers in order of urgency, within a byte budget and bounded queues.
 *
 * Each peer has three queues: urgent changes; own changes, Grafts' answers and control messages; and
 * what is passed on. Urgent frames leave at once on a stream of their own and may borrow from the
 * budget. Of the others, the first after a quiet time leaves at once and the next wait `coalesceMs`
 * to share a stream. When too much waits for a peer its oldest passed-on frames go first, then its
 * own, urgent ones last.
 */
import type { Address } from "../../types.ts";
import type { ChangeDigest } from "../wire/types.ts";
import { TokenBucket } from "./token-bucket.ts";
import type { BroadcastConfig, BroadcastDropReason, BroadcastOutput } from "./types.ts";

/** 0 = urgent, 1 = own changes, answers and control messages, 2 = passed on. */
export type FramePriority = 0 | 1 | 2;

/** One frame to one peer. */
export interface LaneFrame {
  readonly frame: Uint8Array;
  readonly priority: FramePriority;
  /** Of the change in it; null for a control message. */
  readonly digest: ChangeDigest | null;
}

interface Lane {
  readonly address: Address;
  readonly queues: readonly [LaneFrame[], LaneFrame[], LaneFrame[]];
  bytes: number;
  inFlight: number;
  notBeforeMs: number;
}

interface Transmission {
  readonly lane: Lane;
  readonly frames: readonly LaneFrame[];
  readonly expiresMs: number;
}

/** The settings of `BroadcastConfig` that concern sending. */
export type LaneConfig = Pick<
  BroadcastConfig,
  | "flushBytes"
  | "coalesceMs"
  | "budgetBytesPerSecond"
  | "laneBytesMax"
  | "backlogBytesMax"
  | "inFlightMax"
  | "laneInFlightMax"
>;

/** The frames on their way to all peers. */
export class FrameLanes {
  readonly stats = {
    transmissions: 0,
    transmissionsFailed: 0,
    framesSent: 0,
    bytesSent: 0,
    urgentFramesSent: 0,
    rateLimited: 0,
    dropped: 0,
  };
  readonly #config: LaneConfig;
  readonly #bucket: TokenBucket;
  readonly #laneByAddress = new Map<Address, Lane>();
  /** Lanes in which something waits; the one served longest ago first. */
  readonly #busy = new Set<Lane>();
  readonly #transmissionById = new Map<number, Transmission>();
  readonly #dropped = new Map<BroadcastDropReason, number>();
  #lastId = 0;
  #entries = 0;
  #bytes = 0;
  #urgentOutbox: BroadcastOutput[] = [];
  #outbox: BroadcastOutput[] = [];

  /** `bucket`: the budget that is shared with others; by default one of its own. */
  constructor(config: LaneConfig, bucket?: TokenBucket) {
    this.#config = config;
    this.#bucket = bucket ?? new TokenBucket(config.budgetBytesPerSecond);
  }

  /** Frames that wait. */
  get entries(): number {
    return this.#entries;
  }

  /** Their bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  get inFlight(): number {
    return this.#transmissionById.size;
  }

  /** Queues a frame; `flush` sends it. */
  push(target: Address, frame: LaneFrame): void {
    let lane = this.#laneByAddress.get(target);
    if (lane === undefined) {
      lane = {
        address: target,
        queues: [[], [], []],
        bytes: 0,
        inFlight: 0,
        notBeforeMs: -Infinity,
      };
      this.#laneByAddress.set(target, lane);
    }
    lane.queues[frame.priority].push(frame);
    lane.bytes += frame.frame.length;
    this.#bytes += frame.frame.length;
    this.#entries += 1;
    this.#busy.add(lane);
    while (lane.bytes > this.#config.laneBytesMax && this.#dropOldest(lane, "lane-full"));
    if (this.#bytes > this.#config.backlogBytesMax) this.#dropOldest(lane, "backlog-full");
  }

  /** Lets go of what waits for peers that are gone. */
  retain(addresses: { has(address: Address): boolean }): void {
    for (const lane of this.#laneByAddress.values()) {
      if (addresses.has(lane.address)) continue;
      while (this.#dropOldest(lane, "peer-gone"));
      this.#busy.delete(lane);
      this.#laneByAddress.delete(lane.address);
    }
  }

  /** What became of a stream: returns its frames if it failed. */
  finish(id: number, ok: boolean): { target: Address; frames: readonly LaneFrame[] } | null {
    const transmission = this.#transmissionById.get(id);
    if (transmission === undefined) return null;
    this.#transmissionById.delete(id);
    const { lane, frames } = transmission;
    lane.inFlight -= 1;
    if (ok) return null;
    this.stats.transmissionsFailed += 1;
    return { target: lane.address, frames };
  }

  /** Gives up streams whose answer never came. */
  expire(nowMs: number): void {
    for (const [id, { expiresMs }] of this.#transmissionById) {
      if (expiresMs > nowMs) break;
      this.finish(id, false);
    }
  }

  /** Sends what may be sent. */
  flush(nowMs: number): void {
    for (const lane of this.#busy) {
      while (lane.queues[0].length > 0 && this.#canSendUrgent(nowMs)) {
        this.#send(lane, { queues: [lane.queues[0]], isUrgent: true, nowMs });
      }
    }
    for (const lane of this.#busy) {
      if (lane.bytes === 0) this.#busy.delete(lane);
      if (!this.#isReady(lane, nowMs)) continue;
      if (!this.#bucket.isOpen(nowMs)) {
        this.stats.rateLimited += 1;
        break;
      }
      this.#send(lane, { queues: lane.queues.slice(1), isUrgent: false, nowMs });
      lane.notBeforeMs = nowMs + this.#config.coalesceMs;
      // To the end: it is looked at again after all others have had their turn.
      this.#busy.delete(lane);
      if (lane.bytes > 0) this.#busy.add(lane);
    }
  }

  drain(): BroadcastOutput[] {
    const outputs = [...this.#urgentOutbox, ...this.#outbox];
    for (const [reason, count] of this.#dropped) outputs.push({ kind: "drop", reason, count });
    this.#urgentOutbox = [];
    this.#outbox = [];
    this.#dropped.clear();
    return outputs;
  }

  deadlineMs(): number {
    let deadline = Number.POSITIVE_INFINITY;
    for (const { expiresMs } of this.#transmissionById.values()) {
      deadline = expiresMs;
      break;
    }
    if (this.inFlight >= this.#config.inFlightMax) return deadline;
    for (const lane of this.#busy) deadline = Math.min(deadline, this.#laneDeadlineMs(lane));
    return deadline;
  }

  #laneDeadlineMs(lane: Lane): number {
    if (lane.queues[0].length > 0) return this.#bucket.opensForBorrowingAtMs();
    if (!hasOrdinary(lane) || lane.inFlight >= this.#config.laneInFlightMax) return Infinity;
    const opensMs = this.#bucket.opensAtMs();
    return lane.bytes >= this.#config.flushBytes ? opensMs : Math.max(opensMs, lane.notBeforeMs);
  }

  #canSendUrgent(nowMs: number): boolean {
    return this.inFlight < this.#config.inFlightMax && this.#bucket.isOpenForBorrowing(nowMs);
  }

  #isReady(lane: Lane, nowMs: number): boolean {
    if (!hasOrdinary(lane) || lane.inFlight >= this.#config.laneInFlightMax) return false;
    if (this.inFlight >= this.#config.inFlightMax) return false;
    return lane.bytes >= this.#config.flushBytes || nowMs >= lane.notBeforeMs;
  }

  #send(
    lane: Lane,
    of: { readonly queues: LaneFrame[][]; readonly isUrgent: boolean; readonly nowMs: number },
  ): void {
    const taken = takeFrames(of.queues, this.#config.flushBytes);
    const bytes = taken.reduce((sum, { frame }) => sum + frame.length, 0);
    lane.bytes -= bytes;
    this.#bytes -= bytes;
    this.#entries -= taken.length;
    this.#bucket.take(bytes);
    this.#lastId += 1;
    const id = this.#lastId;
    lane.inFlight += 1;
    const expiresMs = of.nowMs + ANSWER_TIMEOUT_MS;
    this.#transmissionById.set(id, { lane, frames: taken, expiresMs });
    this.stats.transmissions += 1;
    this.stats.framesSent += taken.length;
    this.stats.bytesSent += bytes;
    if (of.isUrgent) this.stats.urgentFramesSent += taken.length;
    const { isUrgent } = of;
    const frames = taken.map(({ frame }) => frame);
    const outbox = isUrgent ? this.#urgentOutbox : this.#outbox;
    outbox.push({ kind: "send", id, target: lane.address, frames, isUrgent });
  }

  /** Drops what the lane can spare most; false when it is empty. */
  #dropOldest(lane: Lane, reason: BroadcastDropReason): boolean {
    const dropped = lane.queues[2].shift() ?? lane.queues[1].shift() ?? lane.queues[0].shift();
    if (dropped === undefined) return false;
    lane.bytes -= dropped.frame.length;
    this.#bytes -= dropped.frame.length;
    this.#entries -= 1;
    this.stats.dropped += 1;
    this.#dropped.set(reason, (this.#dropped.get(reason) ?? 0) + 1);
    return true;
  }
}

function hasOrdinary(lane: Lane): boolean {
  return lane.queues[1].length > 0 || lane.queues[2].length > 0;
}

/** Takes frames for one stream: at least one, then as many as fit. */
function takeFrames(queues: LaneFrame[][], bytesMax: number): LaneFrame[] {
  const taken: LaneFrame[] = [];
  let bytes = 0;
  for (const queue of queues) {
    let count = 0;
    for (const entry of queue) {
      bytes += entry.frame.length;
      if (taken.length > 0 && bytes > bytesMax) break;
      taken.push(entry);
      count += 1;
    }
    const isWhole = count === queue.length;
    queue.splice(0, count);
    if (!isWhole) break;
  }
  return taken;
}

/** Above the transport's own timeout of 5 s; reached only if the driver forgets to answer. */
const ANSWER_TIMEOUT_MS = 15_000;
