/**
 * One session of a sync client with one server: how far the conversation is, and which of the
 * versions asked are still open.
 *
 * The protocol has no mark for the end of an answer, so a version counts as answered when it came
 * whole, or as Empty, or as the chunk that reaches the last seq. What the server turns out not to
 * have stays open until it is written off.
 *
 *     opening --opened--> greeting --state and clock--> asking --nothing left--> finishing
 *        any --broken, timed out, rejected, server's FIN--> gone
 */
import type { ActorId, Changeset, VersionRange } from "../../types.ts";
import type { SyncState } from "../wire/types.ts";
import type { PlannedRequest } from "./needs.ts";
import type { SyncClientConfig } from "./config.ts";
import type { SyncPeer } from "./peer-choice.ts";
import { RangeSet } from "#base/range-set.ts";

/** How far a session is. */
export type SessionPhase = "opening" | "greeting" | "asking" | "finishing";

/** A session as its client sees it. */
export class ClientSession {
  readonly sessionId: number;
  readonly peer: SyncPeer;
  readonly startedMs: number;
  phase: SessionPhase = "opening";
  /** Last time that the phase changed, something came, or silence was excused. */
  heardMs: number;
  serverState: SyncState | null = null;
  hasClock = false;
  /** Versions taken from answers. */
  receivedVersions = 0;
  readonly #asked = new Map<ActorId, RangeSet>();
  readonly #open = new Map<ActorId, RangeSet>();
  #openVersions = 0;
  /** Last seq asked of a version asked in part, by actor and version. */
  readonly #lastSeqAsked = new Map<string, number>();

  constructor(options: { sessionId: number; peer: SyncPeer; nowMs: number }) {
    this.sessionId = options.sessionId;
    this.peer = options.peer;
    this.startedMs = options.nowMs;
    this.heardMs = options.nowMs;
  }

  /** Versions asked and not answered. */
  get openVersions(): number {
    return this.#openVersions;
  }

  /** When silence or age next calls for something, monotonic milliseconds. */
  deadlineMs(config: SyncClientConfig): number {
    const silenceMs = {
      opening: config.openTimeoutMs,
      greeting: config.handshakeTimeoutMs,
      asking: this.#openVersions > 0 ? config.quietMs : Number.POSITIVE_INFINITY,
      finishing: config.stallMs,
    }[this.phase];
    return Math.min(this.heardMs + silenceMs, this.startedMs + config.sessionMaxMs);
  }

  /** Notes what was asked. */
  ask(request: PlannedRequest): void {
    const asked = rangesOf(this.#asked, request.actorId);
    const open = rangesOf(this.#open, request.actorId);
    for (const versions of request.versions) {
      asked.insert(versions);
      open.insert(versions);
      this.#openVersions += width(versions);
    }
    for (const need of request.needs) {
      if (need.kind !== "partial") continue;
      const key = `${request.actorId} ${need.version}`;
      this.#lastSeqAsked.set(key, need.seqs.at(-1)?.end ?? 0);
    }
  }

  /**
   * Takes an answer: the parts of it that were asked, with how many versions it closes. A server
   * that says Empty of versions which nobody asked for (Corrosion does for a range that straddles
   * its head) must not make us skip them.
   */
  answer(changeset: Changeset): { taken: Changeset[]; closed: number } {
    const asked = this.#asked.get(changeset.actorId);
    if (asked === undefined) return { taken: [], closed: 0 };
    if (changeset.kind === "empty") {
      const ranges = asked.within(changeset.versions);
      const taken = ranges.map((versions): Changeset => ({ ...changeset, versions }));
      return { taken, closed: this.#close(changeset.actorId, ranges) };
    }
    const { version, seqs, lastSeq } = changeset;
    if (!asked.contains(version)) return { taken: [], closed: 0 };
    const lastAsked = this.#lastSeqAsked.get(`${changeset.actorId} ${version}`) ?? lastSeq;
    const isLast = seqs.end >= Math.min(lastSeq, lastAsked);
    const versions = { start: version, end: version };
    const closed = isLast ? this.#close(changeset.actorId, [versions]) : 0;
    return { taken: [changeset], closed };
  }

  /** Takes out what is open, leaving nothing open. */
  writeOff(): { actorId: ActorId; versions: readonly VersionRange[] }[] {
    const open = [...this.#open].map(([actorId, set]) => ({ actorId, versions: set.ranges }));
    this.#open.clear();
    this.#openVersions = 0;
    return open;
  }

  #close(actorId: ActorId, ranges: readonly VersionRange[]): number {
    const open = rangesOf(this.#open, actorId);
    let closed = 0;
    for (const range of ranges) {
      for (const part of open.within(range)) closed += width(part);
      open.remove(range);
    }
    this.#openVersions -= closed;
    this.receivedVersions += closed;
    return closed;
  }
}

function rangesOf(sets: Map<ActorId, RangeSet>, actorId: ActorId): RangeSet {
  const known = sets.get(actorId);
  if (known !== undefined) return known;
  const made = new RangeSet();
  sets.set(actorId, made);
  return made;
}

function width(versions: VersionRange): number {
  return versions.end - versions.start + 1;
}
