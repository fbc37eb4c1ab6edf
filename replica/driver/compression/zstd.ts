/**
 * Compressed changes (protocol reference, 3.7): zstd out when that is smaller, zstd in always, with
 * the trained dictionaries of a folder.
 *
 * A compressed frame names its dictionary by a number; one that names a dictionary that we lack is
 * counted and lost, and sync repairs it. What a frame may become is bounded before it is
 * decompressed, so that a small one cannot fill the memory. Not used for urgent changes: nothing
 * stands between these and the network.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { errorText } from "#base/errors.ts";
import { failure, success, type Result } from "#base/machine.ts";
import { encodeBody, encodeCompressedBody } from "../../core/wire/uni-payload.ts";
import { decodeChange } from "../../core/wire/changeset-codec.ts";
import { changeBytes, keepAnswer } from "../../core/wire/encoded-changeset.ts";
import type { SyncAnswer } from "../../core/wire/types.ts";
import type { Changeset, FullChangeset } from "../../types.ts";

/** `[gossip.compression]`. */
export interface ZstdOptions {
  /** Whether what we send is compressed; what we receive is understood in any case. */
  readonly isEnabled: boolean;
  /** 1 to 22. */
  readonly level: number;
  /** Folder of dictionaries to decompress with. */
  readonly folder: string | null;
  /** Dictionary to compress with. */
  readonly file: string | null;
}

/** What a change travels by. */
export type ZstdTraffic = "broadcast" | "sync";

/** Plain counters since the start, of one traffic. Bytes are those of changes. */
export interface ZstdStats {
  /** Changes of which it was tried whether they get smaller. */
  attempts: number;
  rawBytes: number;
  /** Of these, those that travel compressed, and what they were smaller by. */
  used: number;
  savedBytes: number;
  /** Bytes of those that did not get smaller. */
  uselessBytes: number;
  /** Changes that zstd could not compress. */
  failed: number;
  /** What received changes were larger by once decompressed. */
  extraBytes: number;
  /** Received changes that could not be decompressed, or were none then. */
  undecodable: number;
  /** Of these, those whose dictionary we lack. */
  unknownDictionaries: number;
}

/** Compresses and decompresses for one replica. */
export class Zstd {
  readonly stats: Readonly<Record<ZstdTraffic, ZstdStats>> = {
    broadcast: createZstdStats(),
    sync: createZstdStats(),
  };
  readonly #options: ZstdOptions;
  #dictionaryById = new Map<number, Buffer>();
  #own: Buffer | null = null;

  constructor(options: ZstdOptions) {
    this.#options = options;
  }

  /** Whether what we send is compressed. */
  get isEnabled(): boolean {
    return this.#options.isEnabled;
  }

  /**
   * Reads the dictionaries anew. What cannot be read or is none is told and left out; those of
   * before are gone only if everything could be looked at.
   */
  reload(): { readonly loaded: number; readonly problems: readonly string[] } {
    const { folder, file } = this.#options;
    const problems: string[] = [];
    const found = new Map<number, Buffer>();
    const files = folder === null ? [] : filesIn(folder, problems);
    for (const path of files) {
      const dictionary = readDictionary(path, problems);
      if (dictionary !== null) found.set(dictionaryIdOf(dictionary), dictionary);
    }
    const own = file === null ? null : readDictionary(file, problems);
    if (own !== null) found.set(dictionaryIdOf(own), own);
    if (problems.length > 0) for (const [id, one] of this.#dictionaryById) setNew(found, id, one);
    this.#dictionaryById = found;
    if (own !== null || file === null) this.#own = own;
    return { loaded: found.size, problems };
  }

  /** The `BroadcastV1` of a change, compressed if enabled and smaller; else null. */
  compressBody(changeset: FullChangeset): Uint8Array | null {
    if (!this.isEnabled) return null;
    // Its tag is all that a body has before the change.
    const plain = encodeBody(changeset).subarray(4);
    if (this.#own === null && plain.length < COMPRESSIBLE_BYTES_MIN) return null;
    const compressed = this.#compress(plain, "broadcast");
    return compressed === null ? null : encodeCompressedBody(compressed);
  }

  /** A change for a sync session whose client takes such; null = it would not be smaller. */
  compressChange(changeset: FullChangeset): Uint8Array | null {
    const plain = changeBytes(changeset);
    return plain.length < COMPRESSIBLE_BYTES_MIN ? null : this.#compress(plain, "sync");
  }

  /** The changesets of a compressed change; a bad one is a value, as hostile bytes must be. */
  decompress(compressed: Uint8Array): Result<readonly Changeset[], string> {
    return this.#decode(compressed, "broadcast", decodeChange);
  }

  /** The same of one that was asked for; see `keepAnswer`. */
  decompressAnswer(compressed: Uint8Array): Result<SyncAnswer, string> {
    return this.#decode(compressed, "sync", keepAnswer);
  }

  #decode<Value>(
    compressed: Uint8Array,
    traffic: ZstdTraffic,
    decode: (bytes: Uint8Array) => Result<Value, string>,
  ): Result<Value, string> {
    const stats = this.stats[traffic];
    const id = frameDictionaryId(compressed);
    // Answers of sync never have one, nor may they be made to.
    const isPlain = id === 0 || traffic === "sync";
    const dictionary = isPlain ? undefined : this.#dictionaryById.get(id);
    if (id !== 0 && dictionary === undefined) stats.unknownDictionaries += 1;
    const bytesMax = traffic === "sync" ? SYNC_BYTES_MAX : BROADCAST_BYTES_MAX;
    const bytes = decompress(compressed, { bytesMax, dictionary });
    if (bytes.ok) stats.extraBytes += Math.max(0, bytes.value.length - compressed.length);
    const decoded = bytes.ok ? decode(bytes.value) : bytes;
    if (!decoded.ok) stats.undecodable += 1;
    return decoded;
  }

  /** Null when it does not get smaller by more than its length takes. */
  #compress(plain: Uint8Array, traffic: ZstdTraffic): Uint8Array | null {
    const stats = this.stats[traffic];
    const dictionary = traffic === "broadcast" ? this.#own : null;
    stats.attempts += 1;
    stats.rawBytes += plain.length;
    const params = { [constants.ZSTD_c_compressionLevel]: this.#options.level };
    try {
      const given = dictionary === null ? {} : { dictionary };
      const compressed = zstdCompressSync(plain, { params, ...given });
      if (compressed.length + LENGTH_BYTES < plain.length) {
        stats.used += 1;
        stats.savedBytes += plain.length - compressed.length;
        return compressed;
      }
      stats.uselessBytes += plain.length;
    } catch (error) {
      // A dictionary that zstd refuses: the change travels as it is.
      if (!(error instanceof Error)) throw error;
      stats.failed += 1;
    }
    return null;
  }
}

function createZstdStats(): ZstdStats {
  return {
    attempts: 0,
    rawBytes: 0,
    used: 0,
    savedBytes: 0,
    uselessBytes: 0,
    failed: 0,
    extraBytes: 0,
    undecodable: 0,
    unknownDictionaries: 0,
  };
}

/** Decompresses a zstd frame; bad or over-large ones are a value, as hostile bytes must be. */
export function decompress(
  compressed: Uint8Array,
  options: { readonly bytesMax?: number; readonly dictionary?: Buffer | undefined } = {},
): Result<Uint8Array, string> {
  const { bytesMax: maxOutputLength = SYNC_BYTES_MAX, dictionary } = options;
  try {
    const given = dictionary ? { dictionary } : {};
    const { buffer, byteOffset, length } = zstdDecompressSync(compressed, {
      maxOutputLength,
      ...given,
    });
    // Keys and blobs of changes are views of it: plain ones, as everywhere.
    return success(new Uint8Array(buffer, byteOffset, length));
  } catch (error) {
    return failure(errorText(error));
  }
}

/** The dictionary that a zstd frame names (RFC 8878, 3.1.1.1); 0 = none, also of what is no frame. */
export function frameDictionaryId(frame: Uint8Array): number {
  const descriptor = frame[4];
  if (descriptor === undefined || FRAME_MAGIC.some((byte, at) => frame[at] !== byte)) return 0;
  const bytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  // A frame of several segments says its window first.
  const start = 5 + ((descriptor & 0x20) === 0 ? 1 : 0);
  let id = 0;
  for (let at = bytes - 1; at >= 0; at -= 1) id = id * 256 + (frame[start + at] ?? 0);
  return id;
}

function filesIn(folder: string, problems: string[]): string[] {
  try {
    return readdirSync(folder)
      .toSorted()
      .map((name) => join(folder, name))
      .filter((path) => statSync(path).isFile());
  } catch (error) {
    problems.push(`${folder}: ${errorText(error)}`);
    return [];
  }
}

function readDictionary(path: string, problems: string[]): Buffer | null {
  try {
    if (statSync(path).size > DICTIONARY_BYTES_MAX) {
      problems.push(`${path}: larger than ${DICTIONARY_BYTES_MAX} bytes`);
      return null;
    }
    const bytes = readFileSync(path);
    if (bytes.length >= 8 && bytes.readUInt32LE(0) === DICTIONARY_MAGIC) return bytes;
    problems.push(`${path}: no zstd dictionary`);
  } catch (error) {
    problems.push(`${path}: ${errorText(error)}`);
  }
  return null;
}

function dictionaryIdOf(dictionary: Buffer): number {
  return dictionary.readUInt32LE(4);
}

function setNew(target: Map<number, Buffer>, id: number, dictionary: Buffer): void {
  if (!target.has(id)) target.set(id, dictionary);
}

/** Of the length that a compressed change is preceded by. */
const LENGTH_BYTES = 4;
/** First bytes of a zstd frame. */
const FRAME_MAGIC = [0x28, 0xb5, 0x2f, 0xfd];
/** First bytes 37 a4 30 ec of a trained dictionary, little-endian; its number follows. */
const DICTIONARY_MAGIC = 0xec_30_a4_37;
/** Trained ones have about 100 KiB. */
const DICTIONARY_BYTES_MAX = 16 * 1024 * 1024;
/** Without a dictionary less than this hardly ever gets smaller. */
const COMPRESSIBLE_BYTES_MIN = 256;
/** What Corrosion's broadcaster makes at most. */
const BROADCAST_BYTES_MAX = 10 * 1024 * 1024;
/** A frame's own limit: a small one must not become a large one. */
const SYNC_BYTES_MAX = 100 * 1024 * 1024;
