/**
 * The brakes of one replica: one for what it writes itself, and one per other origin for what it
 * passes on, in case that origin has none.
 *
 * What comes out are inputs of the broadcast machine, now or later, and who is braked.
 */
import type { Prng } from "#base/prng.ts";
import type { ActorId, Changeset, FullChangeset, LocalCommit } from "../../types.ts";
import type { BroadcastArrival, BroadcastInput, EncodedBodies } from "../broadcast/types.ts";
import { hasUrgentChange } from "../broadcast/urgency.ts";
import { Brake, type BrakeConfig, type BrakeStats } from "./brake.ts";

/** An origin begins to be braked, or is no longer. */
export interface BrakeEvent {
  readonly actorId: ActorId;
  readonly isOn: boolean;
  /** What leaves: changed rows per second. */
  readonly rowsPerSecond: number;
}

/** What the brakes are made of. */
export interface BrakesOptions {
  readonly actorId: ActorId;
  readonly config: BrakeConfig;
  readonly urgentColumns: Readonly<Record<string, readonly string[]>>;
  readonly prng: Prng;
  /** Whether a version is on our disk. */
  readonly has: (actorId: ActorId, version: number) => boolean;
}

/** All brakes of one replica. */
export class Brakes {
  readonly stats: BrakeStats = { rowsHeld: 0, rowsCoalesced: 0, rowsLeftToSync: 0 };
  readonly #options: BrakesOptions;
  readonly #own: Brake<EncodedBodies | null>;
  readonly #relays = new Map<ActorId, Brake<BroadcastArrival>>();
  /** Those that have something to do. */
  readonly #on = new Map<ActorId, Brake<unknown>>();
  /** Own versions up to this one outlive a power loss. */
  #durableHead = 0;
  /** The own head when the disk was asked last; null = it has answered. */
  #askedHead: number | null = null;
  #askAgainMs = Number.NEGATIVE_INFINITY;
  #inputs: BroadcastInput[] = [];
  #events: BrakeEvent[] = [];

  constructor(options: BrakesOptions) {
    this.#options = options;
    this.#own = this.#create(options.config, (version) => version <= this.#durableHead);
  }

  /** Origins that are braked here. */
  get origins(): readonly ActorId[] {
    return [...this.#on.keys()];
  }

  /** Rows that wait. */
  get rows(): number {
    return [...this.#on.values()].reduce((sum, { rows }) => sum + rows, 0);
  }

  /** A transaction of our own is to be broadcast. */
  committed({ changesets }: LocalCommit, bodies: EncodedBodies | undefined, nowMs: number): void {
    const isUrgent = changesets.some((changeset) => this.#isUrgent(changeset));
    const offer = { changesets, carried: bodies ?? null, isUrgent, isWhole: true };
    this.#own.offer(offer, nowMs);
    this.#takeOwn();
  }

  /** News of another origin is to be passed on. */
  received(arrival: BroadcastArrival, nowMs: number): void {
    const { changeset } = arrival;
    if (changeset.kind === "empty") {
      this.#inputs.push({ ...arrival, kind: "received", isNews: true });
      return;
    }
    const { actorId, seqs, lastSeq } = changeset;
    const isWhole = seqs.start === 0 && seqs.end === lastSeq;
    const isUrgent = this.#isUrgent(changeset);
    this.#relay(actorId).offer(
      { changesets: [changeset], carried: arrival, isUrgent, isWhole },
      nowMs,
    );
    this.#takeRelayed(actorId);
  }

  /** Whether this changeset waits to be passed on. */
  holds(changeset: Changeset): boolean {
    if (changeset.kind === "empty") return false;
    return this.#on.has(changeset.actorId) && this.#relay(changeset.actorId).has(changeset.version);
  }

  /** Lets go what is due. */
  tick(nowMs: number): void {
    for (const [actorId, brake] of this.#on) {
      brake.tick(nowMs);
      this.#take(actorId);
    }
  }

  /** Lets go what waits of our own: there is no later. */
  flush(): void {
    this.#own.flush();
    this.#takeOwn();
  }

  /**
   * Whether own versions are to be brought to the disk for good, of which `head` is the last: before
   * that nobody is told what they have emptied. Answer true with `durable`. At most once a second.
   */
  asksDisk(head: number, nowMs: number): boolean {
    const isWanted = this.#own.unkept > 0 && this.#askedHead === null;
    if (!isWanted || nowMs < this.#askAgainMs) return false;
    this.#askedHead = head;
    this.#askAgainMs = nowMs + DISK_MS;
    return true;
  }

  /** The answer to `asksDisk`; false = the disk could not. */
  durable(isStored: boolean): void {
    if (isStored) this.#durableHead = Math.max(this.#durableHead, this.#askedHead ?? 0);
    this.#askedHead = null;
    this.#own.noteKept();
    this.#takeOwn();
  }

  /** What the broadcast machine is to be told. */
  drain(): BroadcastInput[] {
    const inputs = this.#inputs;
    if (inputs.length > 0) this.#inputs = [];
    return inputs;
  }

  drainEvents(): BrakeEvent[] {
    const events = this.#events;
    if (events.length > 0) this.#events = [];
    return events;
  }

  deadlineMs(): number {
    let deadlineMs = Number.POSITIVE_INFINITY;
    for (const brake of this.#on.values()) deadlineMs = Math.min(deadlineMs, brake.deadlineMs());
    return deadlineMs;
  }

  /** Our own head as sync may know it. */
  headForSync(head: number, nowMs: number): number {
    return this.#own.headForSync(head, nowMs);
  }

  #create<Carried>(config: BrakeConfig, isKept: (version: number) => boolean): Brake<Carried> {
    return new Brake<Carried>(config, { prng: this.#options.prng, stats: this.stats, isKept });
  }

  /** An origin with a history of its own knows better: only the upper bound holds for others. */
  #relay(actorId: ActorId): Brake<BroadcastArrival> {
    let brake = this.#relays.get(actorId);
    if (brake === undefined) {
      const { config, has } = this.#options;
      const bounds = { ...config, rowsPerSecondMin: config.rowsPerSecondMax };
      // An origin that loses its last versions with its power finds them here.
      brake = this.#create(bounds, (version) => has(actorId, version));
      this.#relays.set(actorId, brake);
    }
    return brake;
  }

  #isUrgent({ changes }: FullChangeset): boolean {
    return hasUrgentChange(changes, this.#options.urgentColumns);
  }

  #take(actorId: ActorId): void {
    if (actorId === this.#options.actorId) this.#takeOwn();
    else this.#takeRelayed(actorId);
  }

  #takeOwn(): void {
    const { actorId } = this.#options;
    const changesets: Changeset[] = [];
    const bodies: (Uint8Array | null)[] = [];
    for (const released of this.#own.drain()) {
      if (released.kind === "empty") {
        const { versions, ts } = released;
        changesets.push({ kind: "empty", actorId, versions, ts });
        bodies.push(null);
        continue;
      }
      for (const [at, changeset] of released.changesets.entries()) {
        changesets.push(changeset);
        bodies.push(released.carried?.[at] ?? null);
      }
    }
    if (changesets.length > 0) this.#inputs.push({ kind: "committed", changesets, bodies });
    this.#note(actorId, this.#own);
  }

  #takeRelayed(actorId: ActorId): void {
    const brake = this.#relay(actorId);
    for (const released of brake.drain()) {
      if (released.kind === "empty") {
        const { versions, ts } = released;
        const changeset: Changeset = { kind: "empty", actorId, versions, ts };
        this.#inputs.push({ kind: "received", changeset, payload: null, isNews: true });
        continue;
      }
      const { carried } = released;
      for (const changeset of released.changesets) {
        this.#inputs.push({ ...carried, changeset, kind: "received", isNews: true });
      }
    }
    this.#note(actorId, brake);
  }

  #note(actorId: ActorId, brake: Brake<unknown>): void {
    const { isOn } = brake;
    if (isOn === this.#on.has(actorId)) return;
    if (isOn) this.#on.set(actorId, brake);
    else this.#on.delete(actorId);
    this.#events.push({ actorId, isOn, rowsPerSecond: brake.limit });
  }
}

/** A sync of the disk takes some milliseconds, of a slow one some tens. */
const DISK_MS = 1_000;
