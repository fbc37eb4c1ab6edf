/** What Plumtree's next tick announces, and to whom. */
import type { ActorId } from "../../types.ts";
import type { ChangeDigest } from "../wire/types.ts";
import type { TreeMessage } from "./tree-messages.ts";
import type { TreePeer } from "./tree-peers.ts";

/** One message to be announced. */
export interface Announcement {
  readonly message: TreeMessage;
  /** Who has it. */
  readonly except: ActorId | null;
  /** Eager peers are told of it as well: it was not sent to them. */
  readonly isToAll: boolean;
  /** Nobody else is told of it. */
  readonly only?: ActorId;
}

/** Digests for some peers. */
export interface AnnouncementGroup {
  readonly peers: readonly TreePeer[];
  readonly digests: readonly ChangeDigest[];
}

/** Collects announcements until the tick. */
export class LazyQueue {
  readonly #tickMs: number;
  readonly #entriesMax: number;
  #announcements: Announcement[] = [];
  #dueMs = Number.POSITIVE_INFINITY;

  constructor(options: { readonly tickMs: number; readonly entriesMax: number }) {
    this.#tickMs = options.tickMs;
    this.#entriesMax = options.entriesMax;
  }

  /** Announcements that wait. */
  get size(): number {
    return this.#announcements.length;
  }

  /** When the tick is due; `Infinity` = nothing waits. */
  get dueMs(): number {
    return this.#dueMs;
  }

  /** Adds one; the oldest goes when there are more than anybody could ask for afterwards. */
  add(announcement: Announcement, nowMs: number): void {
    this.#announcements.push(announcement);
    this.#dueMs = Math.min(this.#dueMs, nowMs + this.#tickMs);
    if (this.#announcements.length > this.#entriesMax) this.#announcements.shift();
  }

  /** Takes everything out. Most lazy peers hear the same: they are one group. */
  take(lazy: readonly TreePeer[], eager: readonly TreePeer[]): AnnouncementGroup[] {
    const all = this.#announcements;
    this.#announcements = [];
    this.#dueMs = Number.POSITIVE_INFINITY;
    const special = new Set(all.flatMap(({ except, only }) => [except, only]));
    const hasOnly = all.some(({ only }) => only !== undefined);
    const isPlain = (peer: TreePeer): boolean => !hasOnly && !special.has(peer.actorId);
    const groups: AnnouncementGroup[] = [
      { peers: lazy.filter(isPlain), digests: digestsOf(all) },
      ...lazy.filter((peer) => !isPlain(peer)).map((peer) => groupOf(peer, all)),
    ];
    const toEager = all.filter(({ isToAll, only }) => isToAll || only !== undefined);
    if (toEager.length > 0) groups.push(...eager.map((peer) => groupOf(peer, toEager)));
    return groups.filter(({ peers, digests }) => peers.length > 0 && digests.length > 0);
  }
}

function groupOf(peer: TreePeer, all: readonly Announcement[]): AnnouncementGroup {
  const concerning = all.filter(
    ({ except, only }) => except !== peer.actorId && (only === undefined || only === peer.actorId),
  );
  return { peers: [peer], digests: digestsOf(concerning) };
}

function digestsOf(announcements: readonly Announcement[]): ChangeDigest[] {
  return announcements.map(({ message: { id, round } }) => ({ id, round }));
}
