/**
 * What must hold in a simulated cluster. `anytime…` holds under faults too and is looked at while
 * they last; `eventually…` comes to hold after the healing; `finally…` holds when all is quiet.
 *
 * Each checker returns what contradicts it, in words; nothing = it holds.
 */
import { lanPreset } from "../core/swim/config.ts";
import type { Bookkeeping } from "../core/bookkeeping/bookkeeping.ts";
import type { ActorId } from "../types.ts";
import type { ModelStore } from "./model-store.ts";
import type { SimReplica } from "./sim-replica.ts";

/** Virtual time within which healed replicas must agree: four rounds of announcing to the down. */
export const CONVERGENCE_MAX_MS = 60_000;

/** What checkers may look at. */
export interface WorldView {
  readonly replicas: readonly SimReplica[];
  /** Received every transaction that is not lost, whole and in the order of commit. */
  readonly reference: ModelStore;
  /** Greatest version of each actor that reached a disk. */
  readonly committed: ReadonlyMap<ActorId, number>;
  /** Whether a version went with its writer's power and no disk has it whole. */
  isLost(actorId: ActorId, version: number): boolean;
}

/** One claim about a world. */
export type Checker = (world: WorldView) => string[];

/** No replica knows of a version that nobody committed. */
export function anytimeOnlyCommittedVersionsAreKnown({ replicas, committed }: WorldView): string[] {
  const found: string[] = [];
  for (const { address, store } of replicas) {
    for (const actorId of store.books.actors()) {
      const head = store.books.head(actorId);
      const last = committed.get(actorId) ?? 0;
      if (head > last) found.push(`${address} knows ${actorId} ${head}, committed are ${last}`);
    }
  }
  return found;
}

/** A replica has all of its own versions, across every crash that leaves the machine running. */
export function anytimeOwnVersionsAreKept({ replicas, committed }: WorldView): string[] {
  return replicas.flatMap(({ address, actorId, store }) => {
    const last = committed.get(actorId) ?? 0;
    if (last === 0 || store.hasLostPower) return [];
    if (store.books.contains(actorId, { start: 1, end: last })) return [];
    return [`${address} has lost versions of its own up to ${last}`];
  });
}

/** What the memory of a running replica knows is on its disk. */
export function anytimeMemoryIsBehindDisk({ replicas }: WorldView): string[] {
  return replicas.flatMap(({ address, core, store }) => {
    const ahead = core === null ? [] : [...core.books.actors()];
    return ahead
      .filter((actorId) => (core?.books.head(actorId) ?? 0) > store.books.head(actorId))
      .map((actorId) => `${address} believes in versions of ${actorId} that are not on its disk`);
  });
}

/** Whenever a change stream says where it stands, its fold is what a query gives there. */
export function anytimeStreamEqualsQuery({ replicas }: WorldView): string[] {
  return replicas.flatMap(({ address, reader }) =>
    reader.contradictions.map((text) => `${address}: ${text}`),
  );
}

/** Every replica runs and lacks nothing. */
export function eventuallyNothingIsMissing(world: WorldView): string[] {
  const { replicas, committed } = world;
  return replicas.flatMap(({ core, address, store }) => {
    if (core === null) return [`${address} is down`];
    if (core.isRecovering) return [`${address} is in doubt about its own versions`];
    if (core.books.isLacking() && !lacksOnlyWhatIsLost(core.books, world)) {
      return [`${address}: versions are missing`];
    }
    for (const [actorId, head] of committed) {
      const known = store.books.head(actorId);
      if (known !== head) return [`${address}: head of ${actorId} is ${known}, not ${head}`];
    }
    return [];
  });
}

function lacksOnlyWhatIsLost(books: Bookkeeping, world: WorldView): boolean {
  for (const actorId of books.actors()) {
    for (const version of books.partialVersions(actorId)) {
      if (!world.isLost(actorId, version)) return false;
    }
    for (const { start, end } of books.gaps(actorId)) {
      for (let version = start; version <= end; version += 1) {
        if (!world.isLost(actorId, version)) return false;
      }
    }
  }
  return true;
}

/** All rows are those of a replica that heard every commit at once. */
export function eventuallyRowsAgree({ replicas, reference }: WorldView): string[] {
  const digest = reference.rows.digest();
  return replicas
    .filter(({ store }) => store.rows.digest() !== digest)
    .map(({ address }) => `${address}: rows differ`);
}

/**
 * Everybody knows everybody, where they live, and suspects nobody: a suspicion left over from the
 * faults may still end in a verdict. In a cluster whose round of probes is longer than the time to
 * agree, one pair in a thousand may be strangers: gossip misses a few, and a probe mends that.
 */
export function eventuallyMembersAgree({ replicas }: WorldView): string[] {
  const found: string[] = [];
  for (const { core, address } of replicas) {
    for (const other of replicas) {
      if (other.address === address) continue;
      const known = core?.swim.memberById(other.actorId);
      if (known?.state === "alive" && known.actor.addr === other.address) continue;
      found.push(`${address} holds ${other.address} for ${known?.state ?? "a stranger"}`);
    }
  }
  const pairs = replicas.length * (replicas.length - 1);
  const isLarge = replicas.length * lanPreset.probePeriodMs > CONVERGENCE_MAX_MS;
  return isLarge && found.length <= pairs / 1_000 ? [] : found;
}

/** The books in memory are those on the disk, and the disk's changes carry everything. */
export function finallyBooksAgree({ replicas }: WorldView): string[] {
  return replicas.flatMap(({ core, address, store }) => {
    const stored = JSON.stringify(plainBooks(store.loadBooks()));
    const found: string[] = [];
    if (core !== null && JSON.stringify(plainBooks(core.books.snapshot())) !== stored) {
      found.push(`${address}: the mirror's books differ from the store's`);
    }
    if (JSON.stringify(plainBooks(store.books.snapshot())) !== stored) {
      found.push(`${address}: a restart would read other books`);
    }
    return found;
  });
}

/** Queues are empty and stay so: nothing goes round for ever. */
export function finallyNothingIsQueued({ replicas }: WorldView): string[] {
  return replicas.flatMap(({ core, address, isStoreIdle }) => {
    if (core === null) return [];
    const { backlogEntries, inFlight } = core.broadcast.stats;
    const queued = { inbox: core.inboxSize, brakes: core.brakes.rows, backlogEntries, inFlight };
    const found = Object.entries(queued).filter(([, count]) => count > 0);
    if (!isStoreIdle && !core.syncClient.isRunning) found.push(["store", 1]);
    return found.map(([what, count]) => `${address}: ${count} left in ${what}`);
  });
}

/** Every reader of a change stream has been told of everything. */
export function finallyStreamsAreAtTheEnd({ replicas }: WorldView): string[] {
  return replicas
    .filter(({ reader }) => !reader.isAtEnd)
    .map(({ address }) => `${address}: the reader of its change stream waits`);
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

/** Looked at while faults last. */
export const ANYTIME: readonly Checker[] = [
  anytimeOnlyCommittedVersionsAreKnown,
  anytimeOwnVersionsAreKept,
  anytimeMemoryIsBehindDisk,
  anytimeStreamEqualsQuery,
];
/** In the order of what they cost. */
export const EVENTUALLY: readonly Checker[] = [
  eventuallyNothingIsMissing,
  eventuallyMembersAgree,
  eventuallyRowsAgree,
];
/** Looked at after a quiet time that follows agreement. */
export const FINALLY: readonly Checker[] = [
  finallyBooksAgree,
  finallyNothingIsQueued,
  finallyStreamsAreAtTheEnd,
];
