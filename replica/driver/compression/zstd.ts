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
import { encodeChange } from "../../core/wire/changeset-codec.ts";
import type { FullChangeset } from "../../types.ts";

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

/** Plain counters since the start. */
export interface ZstdStats {
  attempts: number;
  used: number;
  bytesSaved: number;
  failed: number;
  /** Changes lost because we lack their dictionary. */
  unknownDictionaries: number;
}

/** Compresses and decompresses for one replica. */
export class Zstd {
  readonly stats: ZstdStats = {
    attempts: 0,
    used: 0,
    bytesSaved: 0,
    failed: 0,
    unknownDictionaries: 0,
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
    const plain = encodeBody(changeset);
    if (this.#own === null && plain.length < COMPRESSIBLE_BYTES_MIN) return null;
    // Its tag is all that a body has before the change.
    const compressed = this.#compress(plain.subarray(4), this.#own);
    if (compressed === null || compressed.length + 8 >= plain.length) return null;
    this.stats.used += 1;
    this.stats.bytesSaved += plain.length - compressed.length - 8;
    return encodeCompressedBody(compressed);
  }

  /** A change for a sync session whose client takes such; null = it would not be smaller. */
  compressChange(changeset: FullChangeset): Uint8Array | null {
    const plain = encodeChange(changeset);
    if (plain.length < COMPRESSIBLE_BYTES_MIN) return null;
    const compressed = this.#compress(plain, null);
    if (compressed === null || compressed.length + 4 >= plain.length) return null;
    this.stats.used += 1;
    this.stats.bytesSaved += plain.length - compressed.length - 4;
    return compressed;
  }

  /** Decompresses a change of a broadcast. */
  decompressBroadcast(compressed: Uint8Array): Result<Uint8Array, string> {
    const id = frameDictionaryId(compressed);
    const dictionary = id === 0 ? undefined : this.#dictionaryById.get(id);
    if (id !== 0 && dictionary === undefined) {
      this.stats.unknownDictionaries += 1;
      return failure("unknown-dictionary");
    }
    const bytes = decompress(compressed, { bytesMax: BROADCAST_BYTES_MAX, dictionary });
    if (!bytes.ok) this.stats.failed += 1;
    return bytes;
  }

  #compress(plain: Uint8Array, dictionary: Buffer | null): Uint8Array | null {
    this.stats.attempts += 1;
    const params = { [constants.ZSTD_c_compressionLevel]: this.#options.level };
    try {
      return zstdCompressSync(plain, { params, ...(dictionary === null ? {} : { dictionary }) });
    } catch (error) {
      // A dictionary that zstd refuses: the change travels as it is.
      if (!(error instanceof Error)) throw error;
      this.stats.failed += 1;
      return null;
    }
  }
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
