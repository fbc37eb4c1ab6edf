/**
 * Pushes changesets to other replicas: gossip without acknowledgement, healed by sync.
 *
 * After Corrosion's gossip method (protocol reference, 3.6), made quicker where its waits buy nothing:
 *   - In a small cluster own changes go straight to every member; in a large one to all of ring 0 and
 *     some others at random (`targets.ts`). Later rounds go to members that have not had them yet.
 *   - A stream leaves at once when the peer's lane was quiet; only a burst waits (10 ms, not 500) to
 *     share streams.
 *   - Urgent changesets (`urgency.ts`) overtake all that is queued, never wait to share a stream, and
 *     may borrow from the byte budget.
 *   - A peer that begins anew gets the last seconds again, since the streams of those seconds may
 *     have ended in the process that died.
 *
 *   committed, received ─► entry ─► lanes of this round's peers ─► send ─► sent
 *                            ▲                                              │ members left and
 *                            └───── waits 100 ms x rounds ◄─────────────────┘ rounds left, else done
 *
 * Received changesets are passed on with their original bytes. In a small cluster, where the origin
 * has sent to all, the next member gets them: a second path around a broken one. Ordinary ones wait up
 * to 500 ms for it and share streams, urgent ones go at once. Whether something is news, and what
 * cluster it came from, is the caller's to know.
 */
import type { Prng } from "#base/prng.ts";
import type { Address, Changeset, FullChangeset } from "../../types.ts";
import { encodeBroadcast, frameBody } from "../wire/uni-payload.ts";
import { Backlog } from "./backlog.ts";
import type { BroadcastEntry } from "./backlog.ts";
import { PeerLane } from "./peer-lane.ts";
import { SeenCache } from "./seen-cache.ts";
import { maxTransmissions, Targets } from "./targets.ts";
import { TokenBucket } from "./token-bucket.ts";
import type {
  BroadcastConfig,
  Broadcaster,
  BroadcastDropReason,
  BroadcastInput,
  BroadcastMember,
  BroadcastOutput,
  BroadcastStats,
} from "./types.ts";
import { hasUrgentChange } from "./urgency.ts";
import { UrgentVersions } from "./urgent-versions.ts";

/** The broadcast machine of one replica. */
export class Broadcast implements Broadcaster {
  readonly links = null;
  readonly #config: BroadcastConfig;
  readonly #backlog = new Backlog();
  readonly #seen: SeenCache;
  readonly #bucket: TokenBucket;
  readonly #targets: Targets;
  /** When the received changesets that wait for the second path leave, those of one time together. */
  #secondPathMs = Number.NEGATIVE_INFINITY;
  readonly #laneByAddress = new Map<Address, PeerLane>();
  /** Lanes in which something waits; the one served longest ago first. */
  readonly #busyLanes = new Set<PeerLane>();
  readonly #transmissionById = new Map<number, Transmission>();
  #lastId = 0;
  /** Sent of late, oldest first: what a renewed peer gets. */
  readonly #recent = new Set<BroadcastEntry>();
  #recentBytes = 0;
  readonly #urgentVersions: UrgentVersions;
  #urgentOutbox: BroadcastOutput[] = [];
  #outbox: BroadcastOutput[] = [];
  readonly #dropped = new Map<BroadcastDropReason, number>();
  readonly #counters = {
    transmissions: 0,
    transmissionsFailed: 0,
    framesSent: 0,
    bytesSent: 0,
    urgentFramesSent: 0,
    relayed: 0,
    duplicates: 0,
    replayed: 0,
    rateLimited: 0,
    dropped: 0,
  };

  /** `bucket`: the budget that is shared with others; by default one of its own. */
  constructor(config: BroadcastConfig, prng: Prng, bucket?: TokenBucket) {
    this.#config = config;
    this.#targets = new Targets(config, prng);
    this.#seen = new SeenCache(config.seenMax);
    this.#urgentVersions = new UrgentVersions(config.urgentColumns);
    this.#bucket = bucket ?? new TokenBucket(config.budgetBytesPerSecond);
  }

  handle(input: BroadcastInput, nowMs: number): void {
    switch (input.kind) {
      case "committed":
        this.#onCommitted(input, nowMs);
        break;
      case "received":
        this.#onReceived(input, nowMs);
        break;
      case "members":
        this.#onMembers(input.members, nowMs);
        break;
      case "peerRenewed":
        this.#onPeerRenewed(input.address, nowMs);
        break;
      case "sent":
        this.#onSent(input.id, input.ok, nowMs);
        break;
      case "tick":
        this.#expireTransmissions(nowMs);
        break;
      case "plumtree":
      case "leave":
        // Nobody here keeps links that could be grafted, pruned or given up.
        break;
    }
    for (const entry of this.#backlog.takeDue(nowMs)) this.#startRound(entry, nowMs);
    this.#flush(nowMs);
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
    let deadline = this.#backlog.nextDueMs();
    for (const { expiresMs } of this.#transmissionById.values()) {
      deadline = Math.min(deadline, expiresMs);
      break;
    }
    if (this.#transmissionById.size >= this.#config.inFlightMax) return deadline;
    for (const lane of this.#busyLanes) deadline = Math.min(deadline, this.#laneDeadlineMs(lane));
    return deadline;
  }

  /** Whether this changeset came by broadcast before: a copy, to be dropped without another look. */
  hasSeen(changeset: Changeset): boolean {
    return this.#seen.has(changeset);
  }

  /** Makes the next copy of this changeset count as new; for one that could not be applied. */
  forget(changeset: Changeset): void {
    this.#seen.delete(changeset);
  }

  /** Counters and present sizes. */
  get stats(): BroadcastStats {
    return {
      ...this.#counters,
      backlogEntries: this.#backlog.size,
      backlogBytes: this.#backlog.bytes,
      inFlight: this.#transmissionById.size,
    };
  }

  #onCommitted({ changesets, bodies }: CommittedInput, nowMs: number): void {
    const urgentVersions = new Set<number>();
    for (const changeset of changesets) {
      if (this.#hasUrgent(changeset)) urgentVersions.add(firstVersionOf(changeset));
    }
    for (const [at, changeset] of changesets.entries()) {
      const payload = this.#frame(changeset, bodies?.[at]);
      const isUrgent = urgentVersions.has(firstVersionOf(changeset));
      this.#enter(this.#createEntry(changeset, payload, { ...LOCAL, isUrgent, nowMs }), nowMs);
    }
  }

  #onReceived(input: ReceivedInput, nowMs: number): void {
    const { changeset, isNews } = input;
    if (changeset.actorId === this.#config.actorId || !this.#seen.add(changeset)) {
      this.#counters.duplicates += 1;
      return;
    }
    // In a small cluster the origin tells all of an Empty by itself; what got lost is sync's.
    if (!isNews || (changeset.kind === "empty" && this.#targets.isSmall)) return;
    this.#counters.relayed += 1;
    const payload = input.payload ?? this.#frame(changeset, input.body);
    const isUrgent = changeset.kind === "full" && this.#isReceivedUrgent(changeset, nowMs);
    const isFromTree = (input.gossip ?? null) !== null;
    const traits = { isLocal: false, isFromTree, isUrgent, nowMs };
    const entry = this.#createEntry(changeset, payload, traits);
    const origin = this.#targets.addressOf(changeset.actorId);
    if (origin !== undefined) entry.sentTo.add(origin);
    this.#enter(entry, nowMs);
  }

  #hasUrgent(changeset: Changeset): boolean {
    if (changeset.kind === "empty") return false;
    return hasUrgentChange(changeset.changes, this.#config.urgentColumns);
  }

  #frame(changeset: Changeset, body: Uint8Array | null | undefined): Uint8Array {
    const { clusterId } = this.#config;
    return body ? frameBody(body, clusterId) : encodeBroadcast(changeset, clusterId);
  }

  /** Judges a chunk with those of its version that came before, and takes these along. */
  #isReceivedUrgent(changeset: FullChangeset, nowMs: number): boolean {
    const verdict = this.#urgentVersions.judge(changeset);
    if (verdict !== "turned") return verdict === "yes";
    const { actorId, version } = changeset;
    for (const entry of this.#backlog.ofVersion(actorId, version)) {
      const lanes = [...entry.lanes];
      for (const lane of lanes) lane.remove(entry);
      this.#backlog.promote(entry);
      for (const lane of lanes) lane.add(entry);
      if (this.#backlog.wake(entry)) this.#startRound(entry, nowMs);
    }
    return true;
  }

  #onMembers(members: readonly BroadcastMember[], nowMs: number): void {
    const addresses = this.#targets.update(members);
    for (const lane of this.#laneByAddress.values()) {
      if (addresses.has(lane.address)) continue;
      this.#laneByAddress.delete(lane.address);
      this.#busyLanes.delete(lane);
      for (const entry of lane.entries())
        this.#unqueue(entry, lane, { reason: "peer-gone", nowMs });
    }
  }

  #onPeerRenewed(address: Address, nowMs: number): void {
    const lane = this.#lane(address);
    const { replayMs } = this.#config;
    const recent = [...this.#recent].filter((entry) => entry.bornMs >= nowMs - replayMs);
    const urgentFirst = [
      ...recent.filter((entry) => entry.isUrgent),
      ...recent.filter((entry) => !entry.isUrgent),
    ];
    for (const entry of urgentFirst) {
      if (entry.lanes.has(lane)) continue;
      this.#counters.replayed += 1;
      // Its rounds are over, so it is the first to go when there is too much.
      const rounds = maxTransmissions(this.#targets.count);
      const sentTo = new Set<Address>();
      const lanes = new Set<PeerLane>();
      const replay = { ...entry, isUrgent: true, rounds, roundsMax: rounds, sentTo, lanes };
      replay.inFlight = 0;
      replay.dueMs = Number.POSITIVE_INFINITY;
      this.#backlog.add(replay);
      this.#queue(replay, lane, nowMs);
    }
    this.#dropSurplus();
  }

  #onSent(id: number, ok: boolean, nowMs: number): void {
    const transmission = this.#transmissionById.get(id);
    if (transmission === undefined) return;
    this.#transmissionById.delete(id);
    const { lane, entries } = transmission;
    lane.inFlight -= 1;
    if (!ok) this.#counters.transmissionsFailed += 1;
    for (const entry of entries) {
      entry.inFlight -= 1;
      if (!ok) entry.sentTo.delete(lane.address);
      const isBetweenRounds = entry.lanes.size === 0 && !Number.isFinite(entry.dueMs);
      if (isBetweenRounds && this.#backlog.has(entry)) this.#settle(entry, nowMs);
    }
  }

  /** An answer that never comes must not hold its entries and its place for ever. */
  #expireTransmissions(nowMs: number): void {
    for (const [id, { expiresMs }] of this.#transmissionById) {
      if (expiresMs > nowMs) break;
      this.#onSent(id, false, nowMs);
    }
  }

  // -------------------------------------------------------------- rounds

  #createEntry(changeset: Changeset, payload: Uint8Array, traits: EntryTraits): BroadcastEntry {
    const isSecondPath = this.#targets.isSecondPath(traits);
    const rounds = maxTransmissions(this.#targets.count);
    const roundsEager = this.#targets.isSmall ? Math.max(SMALL_CLUSTER_ROUNDS, rounds) : rounds;
    return {
      payload,
      origin: changeset.actorId,
      version: firstVersionOf(changeset),
      isLocal: traits.isLocal,
      isFromTree: traits.isFromTree,
      isUrgent: traits.isUrgent,
      bornMs: traits.nowMs,
      rounds: 0,
      roundsMax: isSecondPath ? 1 : roundsEager,
      dueMs: Number.POSITIVE_INFINITY,
      lanes: new Set(),
      inFlight: 0,
      sentTo: new Set(),
    };
  }

  #enter(entry: BroadcastEntry, nowMs: number): void {
    this.#backlog.add(entry);
    this.#remember(entry, nowMs);
    if (this.#targets.isSecondPath(entry) && !entry.isUrgent) {
      if (this.#secondPathMs <= nowMs) this.#secondPathMs = nowMs + SECOND_PATH_MS;
      this.#backlog.wait(entry, this.#secondPathMs);
    } else {
      this.#startRound(entry, nowMs);
    }
    this.#dropSurplus();
  }

  #startRound(entry: BroadcastEntry, nowMs: number): void {
    const targets = this.#targets.pick(entry, this.#isHeldBack(entry, nowMs));
    for (const { address } of targets) this.#queue(entry, this.#lane(address), nowMs);
    if (entry.lanes.size === 0) this.#settle(entry, nowMs);
  }

  #isHeldBack(entry: BroadcastEntry, nowMs: number): boolean {
    return !entry.isUrgent && !this.#bucket.isOpen(nowMs);
  }

  /** All of this round is on its way: decides between another round, waiting for answers, the end. */
  #settle(entry: BroadcastEntry, nowMs: number): void {
    const isHeldBack = this.#isHeldBack(entry, nowMs);
    const roundsMax = isHeldBack ? Math.ceil(entry.roundsMax / 2) : entry.roundsMax;
    if (entry.rounds < roundsMax && this.#targets.hasAny(entry)) {
      const stepMs = isHeldBack ? RATE_LIMITED_STEP_MS : ROUND_STEP_MS;
      this.#backlog.wait(entry, nowMs + stepMs * Math.max(1, entry.rounds));
    } else if (entry.inFlight === 0) {
      this.#backlog.remove(entry);
    }
  }

  #remember(entry: BroadcastEntry, nowMs: number): void {
    this.#recent.add(entry);
    this.#recentBytes += entry.payload.length;
    for (const oldest of this.#recent) {
      const isStale = oldest.bornMs < nowMs - this.#config.replayMs;
      if (!isStale && this.#recentBytes <= this.#config.replayBytesMax) break;
      this.#recent.delete(oldest);
      this.#recentBytes -= oldest.payload.length;
    }
  }

  // -------------------------------------------------------------- lanes

  #lane(address: Address): PeerLane {
    const known = this.#laneByAddress.get(address);
    if (known !== undefined) return known;
    const lane = new PeerLane(address);
    this.#laneByAddress.set(address, lane);
    return lane;
  }

  #queue(entry: BroadcastEntry, lane: PeerLane, nowMs: number): void {
    lane.add(entry);
    this.#busyLanes.add(lane);
    while (lane.ordinaryBytes > this.#config.laneBytesMax) {
      const oldest = lane.oldestOrdinary();
      if (oldest === undefined) return;
      this.#unqueue(oldest, lane, { reason: "lane-full", nowMs });
    }
  }

  /** Gives up on sending an entry to one peer in this round. */
  #unqueue(
    entry: BroadcastEntry,
    lane: PeerLane,
    { reason, nowMs }: { reason: BroadcastDropReason; nowMs: number },
  ): void {
    lane.remove(entry);
    this.#countDrop(reason);
    if (entry.lanes.size === 0) this.#finishRound(entry, nowMs);
  }

  #finishRound(entry: BroadcastEntry, nowMs: number): void {
    this.#backlog.countRound(entry);
    this.#settle(entry, nowMs);
  }

  #dropSurplus(): void {
    const { backlogEntriesMax, backlogBytesMax } = this.#config;
    while (this.#backlog.size > backlogEntriesMax || this.#backlog.bytes > backlogBytesMax) {
      const victim = this.#backlog.victim();
      if (victim === undefined) return;
      this.#backlog.remove(victim);
      for (const lane of victim.lanes) lane.remove(victim);
      this.#countDrop("backlog-full");
    }
  }

  #countDrop(reason: BroadcastDropReason): void {
    this.#counters.dropped += 1;
    this.#dropped.set(reason, (this.#dropped.get(reason) ?? 0) + 1);
  }

  // -------------------------------------------------------------- sending

  #flush(nowMs: number): void {
    for (const lane of this.#busyLanes) {
      while (lane.hasUrgent && this.#canSendUrgent(nowMs)) {
        this.#send(lane, lane.takeUrgent(this.#config.flushBytes), { isUrgent: true, nowMs });
      }
    }
    for (const lane of this.#busyLanes) {
      if (lane.isEmpty) this.#busyLanes.delete(lane);
      if (!this.#isReady(lane, nowMs)) continue;
      if (!this.#bucket.isOpen(nowMs)) {
        this.#counters.rateLimited += 1;
        break;
      }
      this.#send(lane, lane.takeOrdinary(this.#config.flushBytes), { isUrgent: false, nowMs });
      lane.notBeforeMs = nowMs + this.#config.coalesceMs;
      // To the end of the set: it is looked at again after all others have had their turn.
      this.#busyLanes.delete(lane);
      this.#busyLanes.add(lane);
    }
  }

  #canSendUrgent(nowMs: number): boolean {
    const isFull = this.#transmissionById.size >= this.#config.inFlightMax;
    return !isFull && this.#bucket.isOpenForBorrowing(nowMs);
  }

  /** Whether an ordinary stream may go to this peer, the byte budget aside. */
  #isReady(lane: PeerLane, nowMs: number): boolean {
    if (!lane.hasOrdinary || lane.inFlight >= this.#config.laneInFlightMax) return false;
    if (this.#transmissionById.size >= this.#config.inFlightMax) return false;
    return lane.ordinaryBytes >= this.#config.flushBytes || nowMs >= lane.notBeforeMs;
  }

  #laneDeadlineMs(lane: PeerLane): number {
    if (lane.hasUrgent) return this.#bucket.opensForBorrowingAtMs();
    if (!lane.hasOrdinary || lane.inFlight >= this.#config.laneInFlightMax) {
      return Number.POSITIVE_INFINITY;
    }
    const opensMs = this.#bucket.opensAtMs();
    const isFull = lane.ordinaryBytes >= this.#config.flushBytes;
    return isFull ? opensMs : Math.max(opensMs, lane.notBeforeMs);
  }

  #send(
    lane: PeerLane,
    entries: readonly BroadcastEntry[],
    { isUrgent, nowMs }: { isUrgent: boolean; nowMs: number },
  ): void {
    this.#lastId += 1;
    const id = this.#lastId;
    const frames = entries.map(({ payload }) => payload);
    const bytes = frames.reduce((sum, frame) => sum + frame.length, 0);
    this.#bucket.take(bytes);
    this.#counters.transmissions += 1;
    this.#counters.framesSent += frames.length;
    this.#counters.bytesSent += bytes;
    if (isUrgent) this.#counters.urgentFramesSent += frames.length;
    lane.inFlight += 1;
    this.#transmissionById.set(id, { lane, entries, expiresMs: nowMs + ANSWER_TIMEOUT_MS });
    const outbox = isUrgent ? this.#urgentOutbox : this.#outbox;
    outbox.push({ kind: "send", id, target: lane.address, frames, isUrgent });
    for (const entry of entries) {
      entry.inFlight += 1;
      entry.sentTo.add(lane.address);
      if (entry.lanes.size === 0) this.#finishRound(entry, nowMs);
    }
  }
}

function firstVersionOf(changeset: Changeset): number {
  return changeset.kind === "full" ? changeset.version : changeset.versions.start;
}

type CommittedInput = Extract<BroadcastInput, { kind: "committed" }>;
type ReceivedInput = Extract<BroadcastInput, { kind: "received" }>;

interface EntryTraits {
  readonly isLocal: boolean;
  readonly isFromTree: boolean;
  readonly isUrgent: boolean;
  readonly nowMs: number;
}

/** One stream on its way. */
interface Transmission {
  readonly lane: PeerLane;
  readonly entries: readonly BroadcastEntry[];
  readonly expiresMs: number;
}

const LOCAL = { isLocal: true, isFromTree: false };
/** In a small cluster the first round reaches all, so further ones only repeat failed streams. */
const SMALL_CLUSTER_ROUNDS = 3;
/** The longest that a second path takes to begin; under load a stream of it carries all since then. */
const SECOND_PATH_MS = 500;
/** Wait between rounds, times the rounds sent (Corrosion's). */
const ROUND_STEP_MS = 100;
/** The same while the byte budget is used up (Corrosion's). */
const RATE_LIMITED_STEP_MS = 500;
/** Above the transport's own timeout of 5 s; reached only if the driver forgets to answer. */
const ANSWER_TIMEOUT_MS = 15_000;
