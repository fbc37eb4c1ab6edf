/**
 * Answers what a peer asks of one actor's history (protocol reference, section 4.4): what is
 * stored, what is only buffered, and Empty for versions that are known but have nothing left.
 *
 * Nothing is said of versions in our gaps or above our head: an Empty for those would make the peer
 * believe that they never held anything.
 */
import type Database from "better-sqlite3";
import { RangeSet } from "#base/range-set.ts";
import { chunkVersion } from "../../core/wire/chunker.ts";
import type {
  ActorId,
  Changeset,
  FullChangeset,
  PartialVersion,
  ReadVersionsRequest,
  SeqRange,
  VersionRange,
} from "../../types.ts";
import { prepareBuffered, readBuffered } from "./apply.ts";
import type { Ledger, VersionRecord } from "./ledger.ts";
import type { VersionRowReader } from "./version-rows.ts";

/** What a server reads from. */
export interface VersionServerContext {
  readonly database: Database.Database;
  readonly ledger: Ledger;
  readonly rows: VersionRowReader;
}

/** Reads versions for sync answers; made anew after a change of the schema. */
export class VersionServer {
  readonly #context: VersionServerContext;
  readonly #buffered: ReturnType<typeof prepareBuffered>;

  constructor(context: VersionServerContext) {
    this.#context = context;
    this.#buffered = prepareBuffered(context.database);
  }

  /**
   * The answer, newest version first, Empty last. Reading stops after `SERVED_VERSIONS_MAX` versions
   * with rows, or the one that reaches `SERVED_CHANGES_MAX` changes: whatever is below the least
   * version answered was not looked at, and who needs it asks again. Cost: about 60 us for a version
   * of one row, 10 us for each further change.
   */
  read(request: ReadVersionsRequest): Changeset[] {
    const { need } = request;
    return need.kind === "full"
      ? this.#readFull(request, need.versions)
      : this.#readPartial(request, need.version, need.seqs);
  }

  #readFull(request: ReadVersionsRequest, asked: VersionRange): Changeset[] {
    const { actorId } = request;
    const { books } = this.#context.ledger;
    const head = books.head(actorId);
    const range = { start: Math.max(1, asked.start), end: Math.min(asked.end, head) };
    if (range.end < range.start) return [];
    const records = this.#context.ledger.versionsIn(actorId, range).slice(0, SERVED_VERSIONS_MAX);
    if (records.length === SERVED_VERSIONS_MAX)
      range.start = records.at(-1)?.version ?? range.start;
    const changesets: FullChangeset[] = [];
    const served = new RangeSet();
    let changesRead = 0;
    for (const record of records) {
      const chunks = this.#readStored(request, record);
      if (chunks.length > 0) served.insert({ start: record.version, end: record.version });
      changesets.push(...chunks);
      for (const { changes } of chunks) changesRead += changes.length;
      if (changesRead < SERVED_CHANGES_MAX) continue;
      if (record !== records.at(-1)) range.start = record.version;
      break;
    }
    for (const version of this.#partialsIn(actorId, range)) {
      served.insert({ start: version, end: version });
      const partial = books.partial(actorId, version);
      if (partial !== undefined) {
        changesets.push(...this.#readBuffered(request, { version, partial, asked: partial.seqs }));
      }
    }
    changesets.sort(
      (left, right) => right.version - left.version || left.seqs.start - right.seqs.start,
    );
    return [...changesets, ...this.#knownEmpty(actorId, served.missing(range))];
  }

  #readStored(request: ReadVersionsRequest, record: VersionRecord): FullChangeset[] {
    const ordinal = this.#context.ledger.ordinalOf(record.actorId);
    if (ordinal === undefined) return [];
    const { changes, lastSeq } = this.#context.rows.read(record.local, ordinal);
    if (changes.length === 0) return [];
    const { version, ts } = record;
    const { actorId, chunkBytes } = request;
    return chunkVersion({ actorId, version, changes, lastSeq, ts, chunkBytesMax: chunkBytes });
  }

  #readPartial(
    request: ReadVersionsRequest,
    version: number,
    asked: readonly SeqRange[],
  ): Changeset[] {
    const { actorId, chunkBytes } = request;
    const { ledger, rows } = this.#context;
    const partial = ledger.books.partial(actorId, version);
    if (partial !== undefined) return this.#readBuffered(request, { version, partial, asked });
    const versions = { start: version, end: version };
    if (version < 1 || !ledger.books.contains(actorId, versions)) return [];
    const record = ledger.versionsIn(actorId, versions)[0];
    const ordinal = ledger.ordinalOf(actorId);
    const stored = record && ordinal !== undefined ? rows.read(record.local, ordinal) : null;
    if (record === undefined || stored === null || stored.changes.length === 0) {
      return [{ kind: "empty", actorId, versions, ts: null }];
    }
    const { changes, lastSeq } = stored;
    const base = { actorId, version, lastSeq, ts: record.ts, chunkBytesMax: chunkBytes };
    return asked.flatMap((seqs) =>
      seqs.end < seqs.start
        ? []
        : chunkVersion({ ...base, seqs, changes: changesIn(changes, seqs) }),
    );
  }

  #readBuffered(
    request: ReadVersionsRequest,
    source: { version: number; partial: PartialVersion; asked: readonly SeqRange[] },
  ): FullChangeset[] {
    const { version, partial, asked } = source;
    const { actorId, chunkBytes } = request;
    const { lastSeq, ts } = partial;
    const rows = readBuffered(this.#buffered, { actorId, version });
    const overlap = RangeSet.from(partial.seqs).intersect(RangeSet.from(asked));
    const base = { actorId, version, lastSeq, ts, chunkBytesMax: chunkBytes };
    return overlap.ranges.flatMap((seqs) =>
      chunkVersion({ ...base, seqs, changes: changesIn(rows, seqs) }),
    );
  }

  /** Partial versions in a range. */
  #partialsIn(actorId: ActorId, range: VersionRange): number[] {
    const versions: number[] = [];
    for (const version of this.#context.ledger.books.partialVersions(actorId)) {
      if (version >= range.start && version <= range.end) versions.push(version);
    }
    return versions;
  }

  /** The parts of `ranges` that are known, as Empty changesets of bounded width. */
  #knownEmpty(actorId: ActorId, ranges: readonly VersionRange[]): Changeset[] {
    const gaps = RangeSet.from(this.#context.ledger.books.gaps(actorId));
    const empties: Changeset[] = [];
    for (const range of ranges) {
      for (const known of gaps.missing(range)) {
        for (let start = known.start; start <= known.end; start += EMPTY_VERSIONS_MAX) {
          if (empties.length >= EMPTIES_MAX) return empties;
          const end = Math.min(known.end, start + EMPTY_VERSIONS_MAX - 1);
          empties.push({ kind: "empty", actorId, versions: { start, end }, ts: null });
        }
      }
    }
    return empties;
  }
}

function changesIn(changes: FullChangeset["changes"], seqs: SeqRange): FullChangeset["changes"] {
  return changes.filter((change) => change.seq >= seqs.start && change.seq <= seqs.end);
}

/** Bounds the memory and time of one answer; sync asks for about ten versions at a time. */
export const SERVED_VERSIONS_MAX = 1000;
/** The same for versions of many rows: about 10 ms of reading, but for a single larger version. */
export const SERVED_CHANGES_MAX = 1000;
/** Receivers walk through every version of an Empty. */
const EMPTY_VERSIONS_MAX = 1000;
/** Of one answer; enough for a million versions. */
const EMPTIES_MAX = 1000;
