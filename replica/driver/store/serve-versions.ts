/**
 * Answers what a peer asks of one actor's history (protocol reference, section 4.4): what is
 * stored, what is only buffered, and Empty for versions that are known but have nothing left.
 *
 * What is kept aside of a version, because the schema here does not have it yet, is part of the answer.
 *
 * Nothing is said of versions in our gaps or above our head, nor of those that are here without some
 * of their changes: an Empty for those would make the peer believe that they never held anything.
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
import type { KeptAside } from "./kept-aside.ts";
import type { Ledger, VersionRecord } from "./ledger.ts";
import type { VersionRowReader, VersionRows } from "./version-rows.ts";

/** What a server reads from. */
export interface VersionServerContext {
  readonly database: Database.Database;
  readonly ledger: Ledger;
  readonly kept: KeptAside;
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
    const records = this.#recordsIn(actorId, range).slice(0, SERVED_VERSIONS_MAX);
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
    for (const version of this.#context.kept.cutWithin(actorId, range)) {
      served.insert({ start: version, end: version });
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

  /** Versions of which anything is stored or kept aside, newest first; without those cut short. */
  #recordsIn(actorId: ActorId, range: VersionRange): ServedVersion[] {
    const { ledger, kept } = this.#context;
    const stored: ServedVersion[] = ledger.versionsIn(actorId, range);
    const aside = kept.versionsIn(actorId, range);
    const cut = new Set(kept.cutWithin(actorId, range));
    if (aside.length === 0 && cut.size === 0) return stored;
    const known = new Set(stored.map(({ version }) => version));
    const all = [...stored, ...aside.filter(({ version }) => !known.has(version))];
    return all
      .filter(({ version }) => !cut.has(version))
      .toSorted((left, right) => right.version - left.version);
  }

  /** What is left of a version: rows, and what is kept aside. */
  #read(record: ServedVersion): VersionRows {
    const { ledger, kept, rows } = this.#context;
    const ordinal = ledger.ordinalOf(record.actorId);
    const stored =
      record.local === undefined || ordinal === undefined
        ? NO_ROWS
        : rows.read(record.local, ordinal);
    const aside = kept.read(record.actorId, record.version);
    if (aside.length === 0) return stored;
    const changes = [...stored.changes, ...aside].toSorted((left, right) => left.seq - right.seq);
    return { changes, lastSeq: changes.at(-1)?.seq ?? 0 };
  }

  #readStored(request: ReadVersionsRequest, record: ServedVersion): FullChangeset[] {
    const { changes, lastSeq } = this.#read(record);
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
    const { ledger, kept } = this.#context;
    const partial = ledger.books.partial(actorId, version);
    if (partial !== undefined) return this.#readBuffered(request, { version, partial, asked });
    const versions = { start: version, end: version };
    if (version < 1 || !ledger.books.contains(actorId, versions)) return [];
    if (kept.isCut(actorId, version)) return [];
    const record = this.#recordsIn(actorId, versions)[0];
    const stored = record === undefined ? NO_ROWS : this.#read(record);
    if (record === undefined || stored.changes.length === 0) {
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

/** A version to be read; `local` is where its rows are, if it has any. */
type ServedVersion = Omit<VersionRecord, "local"> & { readonly local?: number };

const NO_ROWS: VersionRows = { changes: [], lastSeq: 0 };

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
