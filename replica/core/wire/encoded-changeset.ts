/**
 * A changeset that stays in the bytes in which it travels until somebody wants its changes.
 *
 * What sync answers passes through the replica's thread on its way between the network and the store:
 * the machines there look at whose version it is, which seqs, and how many changes, never at the
 * changes. As bytes it takes a third of the memory that objects take, and goes from thread to thread
 * without being copied value by value.
 *
 * The bytes are those of `encodeChange`. `keepAnswer` walks over the changes to find what stands behind
 * them; that they mean anything is only known when they are decoded, by the store: `problem` says so.
 */
import { failure, success } from "#base/machine.ts";
import { ByteReader } from "#base/byte-reader.ts";
import type { ActorId, Changeset, ColumnChange, FullChangeset, SeqRange } from "../../types.ts";
import { ACTOR_ID_BYTES, readActorId } from "./actor-id.ts";
import {
  COLUMN_BYTES_MIN,
  decodeAnswer,
  decodeChange,
  encodeChange,
  readRange,
  TAG_FULL_V2,
} from "./changeset-codec.ts";
import { estimateChangesetBytes } from "./chunker.ts";
import type { Decoded, SyncAnswer } from "./types.ts";

/** What is known of a changeset without its changes. */
export interface ChangesetHeader {
  readonly actorId: ActorId;
  readonly version: number;
  readonly seqs: SeqRange;
  readonly lastSeq: number;
  readonly ts: bigint;
  /** Column changes in it. */
  readonly changeCount: number;
}

interface DecodedChanges {
  readonly changes: readonly ColumnChange[];
  readonly problem: string | null;
}

/** A full changeset as bytes. */
export class EncodedChangeset implements FullChangeset {
  readonly kind = "full";
  readonly actorId: ActorId;
  readonly version: number;
  readonly seqs: SeqRange;
  readonly lastSeq: number;
  readonly ts: bigint;
  readonly changeCount: number;
  #bytes: Uint8Array;
  #decoded: DecodedChanges | null = null;

  constructor(header: ChangesetHeader, bytes: Uint8Array) {
    this.actorId = header.actorId;
    this.version = header.version;
    this.seqs = header.seqs;
    this.lastSeq = header.lastSeq;
    this.ts = header.ts;
    this.changeCount = header.changeCount;
    this.#bytes = bytes;
  }

  /** The same changeset as bytes. */
  static of(changeset: FullChangeset): EncodedChangeset {
    if (changeset instanceof EncodedChangeset) return changeset;
    const { actorId, version, seqs, lastSeq, ts, changes } = changeset;
    const header = { actorId, version, seqs, lastSeq, ts, changeCount: changes.length };
    return new EncodedChangeset(header, encodeChange(changeset));
  }

  /** As `encodeChange` makes them; none once released. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Decoded at the first look; none when there is a `problem`, or once released. */
  get changes(): readonly ColumnChange[] {
    return this.#decode().changes;
  }

  /** Why the changes cannot be used, as a stable kebab-case reason; null = they can. */
  get problem(): string | null {
    return this.#decode().problem;
  }

  /** Gives the bytes up: somebody else has them. */
  release(): void {
    this.#bytes = NO_BYTES;
    this.#decoded = { changes: [], problem: null };
  }

  #decode(): DecodedChanges {
    if (this.#decoded !== null) return this.#decoded;
    const decoded = decodeChange(this.#bytes);
    const [first] = decoded.ok ? decoded.value : [];
    const changes = first?.kind === "full" ? first.changes : [];
    this.#decoded = { changes, problem: decoded.ok ? null : decoded.error };
    return this.#decoded;
  }
}

/** Column changes in a changeset; nothing is decoded for it. */
export function changeCountOf(changeset: FullChangeset): number {
  return changeset instanceof EncodedChangeset ? changeset.changeCount : changeset.changes.length;
}

/** The bytes of `encodeChange`, which an encoded changeset has at hand. */
export function changeBytes(changeset: Changeset): Uint8Array {
  return changeset instanceof EncodedChangeset ? changeset.bytes : encodeChange(changeset);
}

/** Room that a changeset's frame is likely to take; nothing is decoded for it. */
export function wireBytes(changeset: Changeset): number {
  return changeset instanceof EncodedChangeset
    ? changeset.bytes.length + FRAME_BYTES
    : estimateChangesetBytes(changeset);
}

/** As `decodeAnswer`, but a FullV2 changeset is kept in its bytes, which must not change then. */
export function keepAnswer(bytes: Uint8Array): Decoded<SyncAnswer> {
  const reader = new ByteReader(bytes);
  const actorId = readActorId(reader);
  if (reader.u32le() !== TAG_FULL_V2) return decodeAnswer(bytes);
  reader.skip(ACTOR_ID_BYTES);
  const version = reader.u53le();
  if (version === 0) reader.fail("version-zero");
  const changeCount = skipTables(reader);
  const lastSeq = reader.u53le();
  const seqs = readRange(reader);
  const ts = reader.u64le();
  if (reader.failure !== null) return failure(reader.failure);
  const header = { actorId, version, seqs, lastSeq, ts, changeCount };
  const kept = new EncodedChangeset(header, bytes.subarray(0, reader.offset));
  return success({ kind: "changesets", changesets: [kept] });
}

/** Moves over the changes and counts them. */
function skipTables(reader: ByteReader): number {
  let changes = 0;
  const tableCount = reader.countU32le(8);
  for (let table = 0; table < tableCount && reader.failure === null; table += 1) {
    reader.skip(reader.u32le());
    const keyCount = reader.countU32le(8);
    for (let key = 0; key < keyCount && reader.failure === null; key += 1) {
      reader.skip(reader.u32le());
      const columnCount = reader.countU32le(COLUMN_BYTES_MIN);
      for (let column = 0; column < columnCount && reader.failure === null; column += 1) {
        reader.skip(reader.u32le());
        skipValue(reader);
        reader.skip(NUMBERS_BYTES);
      }
      changes += columnCount;
    }
  }
  return changes;
}

function skipValue(reader: ByteReader): void {
  const tag = reader.u8();
  if (tag === 1 || tag === 2) reader.skip(8);
  else if (tag === 3 || tag === 4) reader.skip(reader.u32le());
  else if (tag !== 0) reader.fail("unknown-tag");
}

/** Length and tags of a frame. */
const FRAME_BYTES = 12;
/** Column version, seq and causal length. */
const NUMBERS_BYTES = 24;
const NO_BYTES = new Uint8Array(0);
