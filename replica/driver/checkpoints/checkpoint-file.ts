/**
 * Packs a database into a checkpoint, and unpacks or checks one.
 *
 * Both go over the bytes once: what is read, compressed and written is summed up on its way. A file
 * that could not be finished is the caller's to remove.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { constants, createZstdCompress, createZstdDecompress } from "node:zlib";
import { errorText, PatinaError } from "#base/errors.ts";
import { adminError } from "../admin/errors.ts";
import {
  damaged,
  decodeHeader,
  encodeHeader,
  HEADER_BYTES,
  headerLength,
  type Manifest,
  type PartSum,
} from "./manifest.ts";

/** A checkpoint's bytes from the beginning, as they come. */
export type CheckpointBytes = AsyncIterable<Uint8Array>;

/** What is known of a checkpoint before it is packed. */
export type ManifestFacts = Omit<Manifest, "database" | "compressed">;

/** Packs the SQLite file at `database` into the new file `target`. Throws `BACKUP_TARGET`. */
export async function packCheckpoint(options: {
  readonly database: string;
  readonly target: string;
  readonly facts: ManifestFacts;
}): Promise<Manifest> {
  const { database, target, facts } = options;
  const [raw, packed] = [new Sum(), new Sum()];
  try {
    await using file = await open(target, "wx");
    const blank = encodeHeader({ ...facts, database: LONGEST_PART, compressed: LONGEST_PART });
    await writeAll(file, blank, 0);
    await pipeline(
      raw.of(createReadStream(database, { highWaterMark: CHUNK_BYTES })),
      createZstdCompress({
        chunkSize: CHUNK_BYTES,
        params: { [constants.ZSTD_c_compressionLevel]: LEVEL },
      }),
      async (chunks: CheckpointBytes) => {
        for await (const chunk of packed.of(chunks)) {
          await writeAll(file, chunk, blank.length + packed.bytes - chunk.length);
        }
      },
    );
    const manifest = { ...facts, database: raw.part(), compressed: packed.part() };
    await writeAll(file, encodeHeader(manifest, blank.length), 0);
    await file.sync();
    return manifest;
  } catch (error) {
    throw adminError("BACKUP_TARGET", `${target}: ${errorText(error)}`, error);
  }
}

/**
 * Reads the manifest, and no more of the bytes than that takes; `name` is told in errors. Throws
 * `CHECKPOINT_DAMAGED`, `CHECKPOINT_FORMAT`.
 */
export async function readManifest(bytes: CheckpointBytes, name: string): Promise<Manifest> {
  await using reader = new HeadReader(bytes, name);
  return reader.manifest();
}

/**
 * Unpacks a checkpoint into the new file `target` (null = only checks it), once `accept` has seen
 * the manifest; what that throws is passed on. Throws `CHECKPOINT_DAMAGED`, `CHECKPOINT_FORMAT`,
 * `BACKUP_TARGET`, and whatever the bytes throw.
 */
export async function unpackCheckpoint(options: {
  readonly bytes: CheckpointBytes;
  readonly name: string;
  readonly target: string | null;
  readonly accept?: (manifest: Manifest) => void;
}): Promise<Manifest> {
  const { bytes, name, target, accept } = options;
  await using reader = new HeadReader(bytes, name);
  const manifest = await reader.manifest();
  accept?.(manifest);
  const file = target === null ? null : await openNew(target);
  try {
    await unpackBody({ reader, manifest, name, file });
    await file?.sync();
  } finally {
    await file?.close();
  }
  return manifest;
}

async function unpackBody(options: {
  readonly reader: HeadReader;
  readonly manifest: Manifest;
  readonly name: string;
  readonly file: FileHandle | null;
}): Promise<void> {
  const { reader, manifest, name, file } = options;
  const { database, compressed } = manifest;
  const [raw, packed] = [new Sum(), new Sum()];
  const save = async (chunks: CheckpointBytes): Promise<void> => {
    for await (const chunk of raw.of(chunks)) {
      if (raw.bytes > database.bytes) throw damaged(name, "holds more than its manifest says");
      if (file !== null) await writeAll(file, chunk, raw.bytes - chunk.length);
    }
  };
  const checked = async function* (): CheckpointBytes {
    yield* packed.of(reader.rest());
    const { bytes } = packed;
    if (bytes < compressed.bytes) {
      throw damaged(name, `is cut short: ${bytes} of ${compressed.bytes} compressed bytes`);
    }
    if (!packed.is(compressed)) throw damaged(name, "has other bytes than were written");
  };
  try {
    await pipeline(checked(), createZstdDecompress({ chunkSize: CHUNK_BYTES }), save);
  } catch (error) {
    if (error instanceof PatinaError) throw error;
    // What stops the decompression is damage too, found before the sum is complete.
    throw damaged(name, `cannot be decompressed: ${errorText(error)}`, error);
  }
  if (!raw.is(database)) throw damaged(name, "decompresses to other bytes than were compressed");
}

/** Takes the header off the beginning of a checkpoint's bytes. */
class HeadReader implements AsyncDisposable {
  readonly #bytes: AsyncIterator<Uint8Array>;
  readonly #name: string;
  #held = Buffer.alloc(0);

  constructor(bytes: CheckpointBytes, name: string) {
    this.#bytes = bytes[Symbol.asyncIterator]();
    this.#name = name;
  }

  async manifest(): Promise<Manifest> {
    await this.#hold(HEADER_BYTES);
    const length = headerLength(this.#held, this.#name);
    if (!(await this.#hold(length))) throw damaged(this.#name, "is cut short: in its manifest");
    const header = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return decodeHeader(header, this.#name);
  }

  /** What follows. */
  async *rest(): CheckpointBytes {
    if (this.#held.length > 0) yield this.#held;
    for (;;) {
      const next = await this.#bytes.next();
      if (next.done === true) return;
      yield next.value;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#bytes.return?.();
  }

  /** Whether there are so many bytes. */
  async #hold(length: number): Promise<boolean> {
    const chunks = [this.#held];
    let bytes = this.#held.length;
    while (bytes < length) {
      const next = await this.#bytes.next();
      if (next.done === true) break;
      chunks.push(Buffer.from(next.value));
      bytes += next.value.length;
    }
    this.#held = Buffer.concat(chunks);
    return bytes >= length;
  }
}

/** Size and SHA-256 of what passes. */
class Sum {
  readonly #hash = createHash("sha256");
  bytes = 0;
  #digest: string | null = null;

  async *of(chunks: CheckpointBytes): CheckpointBytes {
    for await (const chunk of chunks) {
      this.bytes += chunk.length;
      this.#hash.update(chunk);
      yield chunk;
    }
  }

  /** Once everything has passed. */
  part(): PartSum {
    this.#digest ??= this.#hash.digest("hex");
    return { bytes: this.bytes, sha256: this.#digest };
  }

  is(part: PartSum): boolean {
    const { bytes, sha256 } = this.part();
    return bytes === part.bytes && sha256 === part.sha256;
  }
}

async function openNew(path: string): Promise<FileHandle> {
  try {
    return await open(path, "wx");
  } catch (error) {
    throw adminError("BACKUP_TARGET", `${path}: ${errorText(error)}`, error);
  }
}

async function writeAll(file: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  try {
    for (let at = 0; at < chunk.length;) {
      at += (await file.write(chunk, at, chunk.length - at, position + at)).bytesWritten;
    }
  } catch (error) {
    throw adminError("BACKUP_TARGET", errorText(error), error);
  }
}

/** Large enough that passing chunks on costs little beside compressing them. */
const CHUNK_BYTES = 1024 * 1024;
/** zstd's own default: above it, time grows faster than sizes shrink. */
const LEVEL = 3;
/** Takes the place of the sums until they are known: none is longer. */
const LONGEST_PART: PartSum = { bytes: Number.MAX_SAFE_INTEGER, sha256: "0".repeat(64) };
