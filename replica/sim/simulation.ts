/**
 * A cluster in virtual time: random writes under random faults, then healing, then the checks.
 *
 * A run is a function of its seed. What can go wrong, and how much, is drawn per seed, so that some
 * runs have no loss and others only pauses. Beside the replicas there is a reference that receives
 * every transaction whole and in the order of commit: replicas must agree with it, not just with
 * each other.
 */
import { createPrng, type Prng } from "#base/prng.ts";
import type { ActorId, Address, LocalCommit } from "../types.ts";
import { EventQueue } from "./event-queue.ts";
import { ModelStore, type ModelWrite } from "./model-store.ts";
import { type NetworkFaults, SimNetwork } from "./sim-network.ts";
import { SimReplica } from "./sim-replica.ts";
import { Trace } from "./trace.ts";

/** What a run is made of; drawn from the seed unless given. */
export interface SimulationSetup {
  readonly seed: number;
  readonly replicas: number;
  readonly faultsMs: number;
  /** Mean virtual time between two writes anywhere. */
  readonly writeEveryMs: number;
  readonly network: NetworkFaults;
  /** Mean virtual time between two faults of each kind; 0 = never. */
  readonly partitionEveryMs: number;
  readonly crashEveryMs: number;
  readonly pauseEveryMs: number;
  readonly storeMs: number;
  readonly isEncoding: boolean;
  /**
   * One more replica that starts empty at the healing and gets everything by sync, from peers that
   * have overwritten different parts of it.
   */
  readonly hasLatecomer: boolean;
  /** Rows that are written: few are fought over, of many the last fight stays visible. */
  readonly keys: number;
  /** Different values of a column: with one, concurrent writes always tie. */
  readonly values: number;
  /** Greatest width of a sync need: a small one spreads a round over its servers. */
  readonly pieceVersions: number;
  /** Columns that one transaction may write: many make versions of several chunks. */
  readonly columnsMax: number;
}

/** How a run ended. */
export interface SimulationResult {
  /** Empty when all checks held. */
  readonly failures: readonly string[];
  /** Virtual time from the healing to agreement; Infinity if there was none in time. */
  readonly convergedMs: number;
  readonly hash: string;
  readonly events: number;
  readonly commits: number;
  readonly marks: ReadonlySet<string>;
}

/** Draws a setup: which faults there are at all, then how strong each is. */
export function drawSetup(seed: number): SimulationSetup {
  const prng = createPrng([seed, 1]);
  const maybe = (value: number): number => (prng.next() < 0.5 ? 0 : value * prng.next());
  const latency = 1 + prng.next() * 30;
  return {
    seed,
    replicas: 2 + prng.below(5),
    faultsMs: 10_000 + prng.below(10_000),
    writeEveryMs: 50 + prng.below(300),
    network: {
      datagramLoss: maybe(0.3),
      datagramDuplication: maybe(0.1),
      uniLoss: maybe(0.5),
      streamBreak: maybe(0.05),
      latencyMs: { min: latency, max: latency * (1 + 4 * prng.next()) },
      jitterMs: maybe(40),
    },
    partitionEveryMs: maybe(10_000),
    crashEveryMs: maybe(15_000),
    pauseEveryMs: maybe(10_000),
    storeMs: maybe(60),
    isEncoding: prng.next() < 0.25,
    hasLatecomer: prng.next() < 0.5,
    columnsMax: prng.next() < 0.5 ? 3 : 40,
    keys: prng.pick([3, 20, 100]) ?? 3,
    values: 1 + prng.below(3),
    pieceVersions: prng.pick([1, 2, 10, 100]) ?? 100,
  };
}

/** Runs a setup to its end. Throws only on a broken invariant inside a replica. */
export function runSimulation(setup: SimulationSetup): SimulationResult {
  const world = new World(setup);
  world.start();
  world.queue.runUntil(setup.faultsMs);
  world.heal();
  const healedMs = world.queue.nowMs;
  let failures = world.disagreements();
  while (failures.length > 0 && world.queue.nowMs < healedMs + CONVERGENCE_MAX_MS) {
    world.queue.runUntil(world.queue.nowMs + CHECK_EVERY_MS);
    failures = world.disagreements();
  }
  const convergedMs = failures.length > 0 ? Infinity : world.queue.nowMs - healedMs;
  const { trace, commits } = world;
  const { hash, events, marks } = trace;
  failures = [...failures, ...world.lasting()];
  return { failures, convergedMs, hash, events, commits, marks };
}

/** Virtual time within which healed replicas must agree: four rounds of announcing to the down. */
export const CONVERGENCE_MAX_MS = 60_000;
const CHECK_EVERY_MS = 250;

class World {
  readonly queue = new EventQueue();
  readonly trace = new Trace();
  readonly #setup: SimulationSetup;
  readonly #network: SimNetwork;
  readonly #replicas: SimReplica[] = [];
  readonly #prng: Prng;
  /** Receives every commit at once. */
  readonly #reference = new ModelStore(REFERENCE_ID, WHOLE_VERSION_BYTES);
  readonly #lastCommit = new Map<ActorId, number>();
  readonly #lasting: string[] = [];
  #isHealed = false;
  commits = 0;

  constructor(setup: SimulationSetup) {
    const { queue, trace } = this;
    this.#setup = setup;
    this.#prng = createPrng([setup.seed, 2]);
    const network = new SimNetwork({
      queue,
      prng: createPrng([setup.seed, 3]),
      faults: setup.network,
    });
    this.#network = network;
    const count = setup.replicas + (setup.hasLatecomer ? 1 : 0);
    const addresses = Array.from({ length: count }, (_, at) => addressOf(at));
    for (const [at, address] of addresses.entries()) {
      const actorId = actorIdOf(at);
      const replica = new SimReplica({
        actorId,
        address,
        bootstrap: addresses.filter((other) => other !== address),
        queue,
        network,
        trace,
        prng: createPrng([setup.seed, 4, at]),
        storeMs: setup.storeMs,
        storeChangeMs: 0.1,
        pieceVersions: setup.pieceVersions,
        // The protocol wants clocks within 300 ms of each other.
        skewMs: this.#prng.next() * 200,
        isEncoding: setup.isEncoding,
        chunkBytes: SMALL_CHUNK_BYTES,
        onCommit: (commit) => this.#onCommit(actorId, commit),
      });
      this.#replicas.push(replica);
    }
  }

  start(): void {
    for (const replica of this.#replicas.slice(0, this.#setup.replicas)) {
      this.queue.after(this.#prng.next() * 500, () => replica.start());
    }
    this.#every(this.#setup.writeEveryMs, () => this.#write());
    this.#every(this.#setup.partitionEveryMs, () => this.#partition());
    this.#every(this.#setup.crashEveryMs, () => this.#crash());
    this.#every(this.#setup.pauseEveryMs, () => this.#pause());
  }

  /** Ends every fault and every write. */
  heal(): void {
    this.#isHealed = true;
    this.#network.partition(null);
    const { latencyMs, jitterMs } = this.#setup.network;
    this.#network.faults = {
      datagramLoss: 0,
      datagramDuplication: 0,
      uniLoss: 0,
      streamBreak: 0,
      latencyMs,
      jitterMs,
    };
    for (const replica of this.#replicas) if (replica.core === null) replica.start();
    const { lost, doubled, framesLost, broken, cut } = this.#network.counts;
    const counts = { lost, doubled, framesLost, broken, cut };
    for (const [fault, count] of Object.entries(counts)) {
      if (count > 0) this.trace.sometimes(`network: ${fault}`);
    }
  }

  /** What keeps the replicas from agreeing with the reference: nothing = converged. */
  disagreements(): string[] {
    const found = this.#replicas.flatMap((replica) => this.#lagOf(replica));
    // Rows are compared last, because that costs most.
    if (found.length > 0) return found;
    const digest = this.#reference.rows.digest();
    for (const { address, store } of this.#replicas) {
      if (store.rows.digest() !== digest) found.push(`${address}: rows differ`);
    }
    return found;
  }

  #lagOf({ core, address, store }: SimReplica): string[] {
    if (core === null) return [`${address} is down`];
    if (core.books.isLacking()) return [`${address}: versions are missing`];
    const stored = store.loadBooks();
    for (const [actorId, head] of this.#lastCommit) {
      const known = stored.get(actorId)?.head ?? 0;
      if (known !== head) return [`${address}: head of ${actorId} is ${known}, not ${head}`];
    }
    const mirror = JSON.stringify(plainBooks(core.books.snapshot()));
    const isFollowing = mirror === JSON.stringify(plainBooks(stored));
    return isFollowing ? [] : [`${address}: the mirror's books differ from the store's`];
  }

  /** Broken promises that no later healing mends. */
  lasting(): string[] {
    for (const replica of this.#replicas) {
      if (replica.refused > 0) this.#lasting.push(`${replica.address} refused ${replica.refused}`);
    }
    return this.#lasting;
  }

  #onCommit(actorId: ActorId, commit: LocalCommit): void {
    this.commits += 1;
    const last = this.#lastCommit.get(actorId) ?? 0;
    if (commit.version !== last + 1) {
      this.#lasting.push(`${actorId} committed ${commit.version} after ${last}`);
    }
    this.#lastCommit.set(actorId, commit.version);
    this.#reference.apply(commit.changesets);
    if (commit.changesets.length > 1) this.trace.sometimes("commit of several chunks");
  }

  #write(): void {
    const replica = this.#prng.pick(this.#replicas);
    const count = 1 + this.#prng.below(3);
    replica?.write(Array.from({ length: count }, () => this.#drawWrite()));
  }

  /** Short keys and values, so that writers collide and values tie. */
  #drawWrite(): ModelWrite {
    const prng = this.#prng;
    const pk = new Uint8Array([1, 9, prng.below(this.#setup.keys)]);
    if (prng.next() < 0.2) return { table: "t", pk, columns: null };
    const columns: Record<string, string> = {};
    const count = 1 + prng.below(this.#setup.columnsMax);
    for (let at = 0; at < count; at += 1) {
      columns[`c${prng.below(this.#setup.columnsMax)}`] = `v${prng.below(this.#setup.values)}`;
    }
    return { table: "t", pk, columns };
  }

  #partition(): void {
    const groups = new Map<Address, number>();
    for (const { address } of this.#replicas) groups.set(address, this.#prng.below(2));
    this.#network.partition(groups);
    this.trace.sometimes("partition");
    this.queue.after(500 + this.#prng.next() * 12_000, () => this.#network.partition(null));
  }

  #crash(): void {
    const replica = this.#prng.pick(this.#replicas);
    if (replica === undefined || replica.core === null) return;
    replica.crash();
    this.trace.sometimes("crash");
    this.queue.after(this.#prng.next() * 10_000, () => {
      if (replica.core === null) replica.start();
    });
  }

  #pause(): void {
    this.#prng.pick(this.#replicas)?.pause(100 + this.#prng.next() * 8_000);
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

/** In a form that does not depend on the order in which actors and versions were learnt. */
function plainBooks(books: ReturnType<ModelStore["loadBooks"]>): unknown {
  return [...books]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([actorId, { head, gaps, partials }]) => [
      actorId,
      head,
      gaps,
      [...partials].sort(([one], [other]) => one - other).map(([at, { seqs }]) => [at, seqs]),
    ]);
}

function addressOf(at: number): Address {
  return `10.0.0.${at + 1}:8787`;
}

function actorIdOf(at: number): ActorId {
  return `0000000${at.toString(16)}-0000-4000-8000-000000000000`.slice(-36);
}

/** Knows nobody and is known to nobody. */
const REFERENCE_ID: ActorId = "ffffffff-0000-4000-8000-000000000000";
const WHOLE_VERSION_BYTES = 1_000_000;
/** So that a transaction of a few dozen columns is cut into several chunks. */
const SMALL_CHUNK_BYTES = 400;
/** Keeps faults from following each other faster than anything can react. */
const LEAST_PAUSE_MS = 40;
