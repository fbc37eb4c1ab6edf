/**
 * A cluster in virtual time: replicas on a network, random writes to them, random faults, healing.
 *
 * Beside the replicas there is a reference that receives every transaction whole and in the order
 * of commit: replicas must agree with it, not just with each other.
 *
 * Power is lost by one replica at a time, and it comes back only when all others can be asked: what
 * reached none but those that are away is given out twice, which is a limit that is known. Until it has
 * settled what is its own there are no further faults but those of the network's packets.
 */
import { createPrng, type Prng } from "#base/prng.ts";
import type { SwimPacket } from "../core/swim/packet.ts";
import type { SessionMessage } from "../core/sync/messages.ts";
import type { ActorId, Address, ApplyOutcome, LocalCommit } from "../types.ts";
import type { WorldView } from "./checkers.ts";
import { EventQueue } from "./event-queue.ts";
import type { ModelStore, ModelWrite } from "./model-store.ts";
import { History } from "./history.ts";
import type { SimulationSetup } from "./setup.ts";
import { FrameDecoder } from "./sim-codec.ts";
import { SimNetwork } from "./sim-network.ts";
import { SimReplica } from "./sim-replica.ts";
import { Trace } from "./trace.ts";

/** Hears of an apply: who, when, what. */
export type AppliedListener = (replica: SimReplica, outcomes: readonly ApplyOutcome[]) => void;

/** The world of one run. */
export class World implements WorldView {
  readonly queue = new EventQueue();
  readonly trace = new Trace();
  readonly network: SimNetwork<SwimPacket, SessionMessage>;
  readonly replicas: readonly SimReplica[];
  readonly #history = new History(() => this.replicas.map(({ store }) => store));
  onApplied: AppliedListener = () => {};
  readonly #setup: SimulationSetup;
  readonly #prng: Prng;
  readonly #frames = new FrameDecoder();
  #isHealed = false;
  #isSplit = false;
  /** Has lost power and not yet settled what is its own. */
  #victim: SimReplica | null = null;
  #moves = 0;

  constructor(setup: SimulationSetup) {
    const { queue } = this;
    this.#setup = setup;
    this.#prng = createPrng([setup.seed, 2]);
    const prng = createPrng([setup.seed, 3]);
    this.network = new SimNetwork({ queue, prng, faults: setup.network });
    const count = setup.replicas + (setup.hasLatecomer ? 1 : 0);
    const addresses = Array.from({ length: count }, (_, at) => addressOf(at));
    this.replicas = addresses.map((_, at) => this.#createReplica(at, addresses));
  }

  get reference(): ModelStore {
    return this.#history.reference;
  }

  get committed(): ReadonlyMap<ActorId, number> {
    return this.#history.committed;
  }

  /** Promises that were broken at some time. */
  get broken(): readonly string[] {
    return this.#history.broken;
  }

  get commits(): number {
    return this.#history.count;
  }

  isLost(actorId: ActorId, version: number): boolean {
    return this.#history.isLost(actorId, version);
  }

  /** Starts every replica but the latecomer, within half a second. */
  start(): void {
    for (const replica of this.replicas.slice(0, this.#setup.replicas)) {
      this.queue.after(this.#prng.next() * 500, () => replica.start());
    }
  }

  /** Begins writes and faults, which go on until the healing. */
  unleash(): void {
    this.#every(this.#setup.writeEveryMs, () => this.#write());
    this.#every(this.#setup.partitionEveryMs, () => this.#partition());
    this.#every(this.#setup.crashEveryMs, () => this.#crash());
    this.#every(this.#setup.pauseEveryMs, () => this.#pause());
    this.#every(this.#setup.powerLossEveryMs, () => this.#losePower());
  }

  /** Ends every fault and every write. */
  heal(): void {
    this.#isHealed = true;
    this.#split(null);
    const { datagramLoss, datagramDuplication, uniLoss, streamBreak } = NONE;
    const faults = { datagramLoss, datagramDuplication, uniLoss, streamBreak };
    this.network.faults = { ...this.#setup.network, ...faults };
    for (const replica of this.replicas) {
      replica.reader.calm();
      if (replica.core === null && replica !== this.#victim) replica.start();
    }
  }

  /** Marks the faults of the network that happened. */
  markFaults(): void {
    for (const [fault, count] of Object.entries(this.network.counts)) {
      if (count > 0) this.trace.sometimes(`network: ${fault}`);
    }
    const trees = this.replicas.map(({ core }) => core?.broadcast.stats.plumtree);
    if (trees.some((stats) => (stats?.graftsSent ?? 0) > 0)) this.trace.sometimes("tree: Graft");
    if (trees.some((stats) => (stats?.prunesSent ?? 0) > 0)) this.trace.sometimes("tree: Prune");
  }

  #createReplica(at: number, addresses: readonly Address[]): SimReplica {
    const { queue, trace, network } = this;
    const { seed, seeds, links, traits } = this.#setup;
    const [actorId, address] = [actorIdOf(at), addressOf(at)];
    const replica: SimReplica = new SimReplica({
      actorId,
      address,
      bootstrap:
        links === undefined
          ? addresses.slice(0, seeds).filter((other) => other !== address)
          : this.#prng.sample(
              addresses.filter((other) => other !== address),
              links,
            ),
      queue,
      network,
      trace,
      prng: createPrng([seed, 4, at]),
      readerPrng: createPrng([seed, 5, at]),
      traits,
      frames: this.#frames,
      // The protocol wants clocks within 300 ms of each other.
      skewMs: this.#prng.next() * 200,
      observer: {
        onCommit: (commit) => this.#onCommit(replica.actorId, commit),
        onApplied: (outcomes) => this.#onApplied(replica, outcomes),
        onSettled: (head) => this.#onSettled(replica, head),
        onRenewed: (former, commit) => this.#onRenewed(replica, former, commit),
      },
    });
    return replica;
  }

  #onCommit(actorId: ActorId, commit: LocalCommit): void {
    this.#history.commit(actorId, commit);
    if (commit.changesets.length > 1) this.trace.sometimes("commit of several chunks");
  }

  #onSettled(replica: SimReplica, head: number): void {
    const { actorId, store } = replica;
    if (head < (this.committed.get(actorId) ?? 0)) this.trace.sometimes("own version was nowhere");
    this.#history.settle(actorId, head);
    if (store.books.missingVersions(actorId) > 0) this.trace.sometimes("own version skipped");
    if (this.#victim === replica) this.#victim = null;
  }

  #onRenewed(replica: SimReplica, former: ActorId, commit: LocalCommit | null): void {
    this.#history.abandon(former);
    if (commit !== null) this.#onCommit(replica.actorId, commit);
    if (this.#victim === replica) this.#victim = null;
  }

  #onApplied(replica: SimReplica, outcomes: readonly ApplyOutcome[]): void {
    for (const outcome of outcomes) {
      if (outcome.kind !== "refused") continue;
      this.#history.broken.push(`${replica.address} refused a changeset: ${outcome.reason}`);
    }
    this.onApplied(replica, outcomes);
  }

  #write(): void {
    const count = 1 + this.#prng.below(3);
    const writes = Array.from({ length: count }, () => this.#drawWrite());
    this.#prng.pick(this.replicas)?.write(writes);
  }

  /** Short keys and values, so that writers collide and values tie. */
  #drawWrite(): ModelWrite {
    const prng = this.#prng;
    const { keys, values, columnsMax } = this.#setup;
    const pk = new Uint8Array([1, 9, prng.below(keys)]);
    if (prng.next() < 0.2) return { table: "t", pk, columns: null };
    const columns: Record<string, string> = {};
    const count = 1 + prng.below(columnsMax);
    for (let at = 0; at < count; at += 1) {
      columns[`c${prng.below(columnsMax)}`] = `v${prng.below(values)}`;
    }
    return { table: "t", pk, columns };
  }

  #partition(): void {
    if (this.#victim !== null) return;
    const groups = new Map<Address, number>();
    for (const { address } of this.replicas) groups.set(address, this.#prng.below(2));
    this.#split(groups);
    this.trace.sometimes("partition");
    this.queue.after(500 + this.#prng.next() * 12_000, () => this.#split(null));
  }

  #split(groups: ReadonlyMap<Address, number> | null): void {
    this.#isSplit = groups !== null;
    this.network.partition(groups);
  }

  #crash(): void {
    const prng = this.#prng;
    const replica = prng.pick(this.replicas);
    if (replica === undefined || replica.core === null || this.#victim !== null) return;
    if (prng.next() < this.#setup.leaveShare) {
      replica.leave();
      this.trace.sometimes("leave");
    } else {
      replica.crash();
      this.trace.sometimes("crash");
    }
    const isSeed = this.replicas.indexOf(replica) < this.#setup.seeds;
    const isMoving = !isSeed && prng.next() < this.#setup.moveShare;
    // Half of the restarts are so quick that nobody has noticed anything.
    const downMs = prng.next() < 0.5 ? prng.next() * 300 : prng.next() * 12_000;
    this.queue.after(downMs, () => {
      if (replica.core !== null || replica === this.#victim) return;
      if (!isMoving) return replica.start();
      this.trace.sometimes("moved");
      this.#moves += 1;
      replica.start(addressOf(FIRST_MOVED + this.#moves));
    });
  }

  #losePower(): void {
    const prng = this.#prng;
    const replica = prng.pick(this.replicas);
    if (replica === undefined || replica.core === null || this.#victim !== null) return;
    if (!replica.expectsOthers) return;
    if (replica.core.brakes.rows > 0) this.trace.sometimes("power loss behind a brake");
    this.losePower(replica, prng.below(replica.store.unsynced + 1));
  }

  /** A replica loses power and its last `lost` transactions; it starts when it can ask all others. */
  losePower(replica: SimReplica, lost: number): void {
    this.#victim = replica;
    this.trace.sometimes("power loss");
    replica.losePower(lost);
    if (this.#history.lose(replica.store) > 0) this.trace.sometimes("own versions lost");
    this.#startWhenOthersAreThere(replica, 1_000 + this.#prng.next() * 5_000);
  }

  /** Starts a replica when all others have been there for a while. */
  #startWhenOthersAreThere(replica: SimReplica, forMs: number): void {
    const { nowMs } = this.queue;
    const others = this.replicas.filter((other) => other !== replica && other.hasStarted);
    const isPresent = ({ core, pausedUntilMs }: SimReplica): boolean =>
      core !== null && pausedUntilMs <= nowMs;
    const areThere = !this.#isSplit && others.every(isPresent);
    if (areThere && forMs <= 0) return replica.start();
    const stepMs = Math.max(LEAST_PAUSE_MS, Math.min(forMs, 500));
    const leftMs = areThere ? forMs - stepMs : forMs;
    this.queue.after(stepMs, () => this.#startWhenOthersAreThere(replica, leftMs));
  }

  #pause(): void {
    if (this.#victim !== null) return;
    this.#prng.pick(this.replicas)?.pause(100 + this.#prng.next() * 8_000);
    this.trace.sometimes("pause");
  }

  /** Repeats until the healing, at random times around the mean. */
  #every(meanMs: number, act: () => void): void {
    if (meanMs <= 0) return;
    const delayMs = Math.max(LEAST_PAUSE_MS, meanMs) * 2 * this.#prng.next();
    this.queue.after(delayMs, () => {
      if (this.#isHealed) return;
      act();
      this.#every(meanMs, act);
    });
  }
}

function addressOf(at: number): Address {
  return `10.0.${at >> 8}.${at & 255}:8787`;
}

function actorIdOf(at: number): ActorId {
  return `${at.toString(16).padStart(8, "0")}-0000-4000-8000-000000000000`;
}

const NONE = { datagramLoss: 0, datagramDuplication: 0, uniLoss: 0, streamBreak: 0 };
/** Keeps faults from following each other faster than anything can react. */
const LEAST_PAUSE_MS = 40;
/** Addresses from here on are for replicas that move. */
const FIRST_MOVED = 0x8000;
