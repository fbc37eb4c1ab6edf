/**
 * Every commit of a simulated run, and what became of it: by the rules a committed version is for
 * ever, unless its writer loses power before it was synced and no disk of another replica has it.
 */
import type { ActorId, LocalCommit } from "../types.ts";
import { ModelStore } from "./model-store.ts";

/** The commits of one run. */
export class History {
  /** Greatest version that each actor has given out. */
  readonly committed = new Map<ActorId, number>();
  /** Promises that were broken at some time; no later healing mends them. */
  readonly broken: string[] = [];
  readonly #disks: () => Iterable<ModelStore>;
  #commits: Commit[] = [];
  /** Versions that their writer's disk lost; they may be back since. */
  readonly #endangered = new Map<ActorId, Set<number>>();
  /** Received every commit, whole and in order; used while none is endangered. */
  readonly #all = createReference();

  /** `disks`: of all replicas, as they are when it is called. */
  constructor(disks: () => Iterable<ModelStore>) {
    this.#disks = disks;
  }

  get count(): number {
    return this.#commits.length;
  }

  /** A transaction reached its writer's disk. */
  commit(actorId: ActorId, commit: LocalCommit): void {
    const { version } = commit;
    const last = this.committed.get(actorId) ?? 0;
    if (version !== last + 1) this.broken.push(`${actorId} committed ${version} after ${last}`);
    this.committed.set(actorId, version);
    this.#commits.push({ actorId, commit });
    this.#all.apply(commit.changesets);
  }

  /** A disk lost its last transactions; returns how many of them were commits of its own. */
  lose({ actorId, books }: ModelStore): number {
    const last = this.committed.get(actorId) ?? 0;
    const endangered = this.#endangered.get(actorId) ?? new Set();
    this.#endangered.set(actorId, endangered);
    for (let version = books.head(actorId) + 1; version <= last; version += 1) {
      endangered.add(version);
    }
    return last - books.head(actorId);
  }

  /** A writer goes on above `head`: what it gave out beyond must be nowhere. */
  settle(actorId: ActorId, head: number): void {
    for (const { actorId: holder, books } of this.#disks()) {
      const known = books.head(actorId);
      if (known > head) this.broken.push(`${actorId} gives ${known} out again, ${holder} has it`);
    }
    this.committed.set(actorId, head);
    this.#commits = this.#commits.filter(
      (each) => each.actorId !== actorId || each.commit.version <= head,
    );
  }

  /** A writer is no more: what no disk has heard of by now was never given out. */
  abandon(actorId: ActorId): void {
    this.settle(actorId, Math.max(...[...this.#disks()].map(({ books }) => books.head(actorId))));
  }

  /** Whether a version was endangered and no disk has it whole. */
  isLost(actorId: ActorId, version: number): boolean {
    if (this.#endangered.get(actorId)?.has(version) !== true) return false;
    const versions = { start: version, end: version };
    for (const { books } of this.#disks()) if (books.contains(actorId, versions)) return false;
    return true;
  }

  /** A disk that received everything that is not lost. O(commits) after a power loss. */
  get reference(): ModelStore {
    if (this.#endangered.size === 0) return this.#all;
    const reference = createReference();
    for (const { actorId, commit } of this.#commits) {
      if (!this.isLost(actorId, commit.version)) reference.apply(commit.changesets);
    }
    return reference;
  }
}

interface Commit {
  readonly actorId: ActorId;
  readonly commit: LocalCommit;
}

function createReference(): ModelStore {
  return new ModelStore(REFERENCE_ID, WHOLE_VERSION_BYTES);
}

/** Knows nobody and is known to nobody. */
const REFERENCE_ID: ActorId = "ffffffff-0000-4000-8000-000000000000";
const WHOLE_VERSION_BYTES = 1_000_000;
