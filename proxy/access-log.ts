/**
 * The access log: one line per request, written by Node's thread pool in batches, so that neither a
 * request nor the loop ever waits for the disk. What a slow disk cannot take is dropped and counted
 * rather than piled up. A file that was moved away or deleted is opened anew within a second, so that
 * logs can be rotated by renaming.
 */
import { closeSync, openSync, fstatSync, stat, write } from "node:fs";
import { errorText, PatinaError } from "#base/errors.ts";
import { accessLine, commonTime, type AccessLogFormat } from "./core/access-line.ts";
import type { RequestSummary } from "./types.ts";

/** How a log is written. */
export interface AccessLogOptions {
  readonly path: string;
  /** Default `json`. */
  readonly format?: AccessLogFormat;
  /** Lines were lost. */
  readonly onDropped?: (lines: number) => void;
}

/** Appends to one file. */
export class AccessLog {
  /** Lines lost: too much was waiting, or the disk refused. */
  dropped = 0;
  readonly #options: AccessLogOptions;
  readonly #format: AccessLogFormat;
  #fd: number;
  #inode: number;
  #lines: string[] = [];
  #bytes = 0;
  #isWriting = false;
  #timeMs = 0;
  /** `#timeMs` as the format has it. */
  #time = "";
  #lastLookMs = 0;
  readonly #timer: NodeJS.Timeout;

  /** Opens the file for appending. Throws `CONFIG_INVALID` when it cannot be written. */
  constructor(options: AccessLogOptions) {
    this.#options = options;
    this.#format = options.format ?? "json";
    try {
      this.#fd = openSync(options.path, "a", 0o640);
    } catch (error) {
      throw new PatinaError("CONFIG_INVALID", `proxy.access_log: ${errorText(error)}`, {
        cause: error,
      });
    }
    this.#inode = fstatSync(this.#fd).ino;
    this.#timer = setInterval(() => this.#onTimer(Date.now()), FLUSH_MS);
    this.#timer.unref();
  }

  /** Takes one finished request. */
  write(summary: RequestSummary): void {
    if (this.#bytes > WAITING_BYTES_MAX) return this.#drop(1);
    const line = accessLine(this.#format, summary, this.#timeAt(Date.now()));
    this.#lines.push(line);
    this.#bytes += line.length;
    if (this.#bytes > FLUSH_BYTES) this.#flush();
  }

  /** Looks whether the file is still where it was. Called by its own timer; tests may call it. */
  look(): Promise<void> {
    return new Promise((resolve) => {
      stat(this.#options.path, (error, found) => {
        const isThere = error === null && found.ino === this.#inode;
        // A folder that is gone as well: what is open goes on being written.
        const isMoved = error === null || error.code === "ENOENT";
        if (!isThere && isMoved && !this.#isWriting) this.#reopen();
        resolve();
      });
    });
  }

  /** Writes what is left and closes the file. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    while (this.#bytes > 0 || this.#isWriting) {
      this.#flush();
      await new Promise((resolve) => setImmediate(resolve));
    }
    closeSync(this.#fd);
  }

  #onTimer(nowMs: number): void {
    this.#flush();
    if (nowMs - this.#lastLookMs < LOOK_MS) return;
    this.#lastLookMs = nowMs;
    void this.look();
  }

  #reopen(): void {
    try {
      const fd = openSync(this.#options.path, "a", 0o640);
      closeSync(this.#fd);
      this.#fd = fd;
      this.#inode = fstatSync(fd).ino;
    } catch (error) {
      // The old file still takes lines; the next look tries again.
      if (!(error instanceof Error)) throw error;
    }
  }

  #flush(): void {
    if (this.#isWriting || this.#lines.length === 0) return;
    const lines = this.#lines;
    this.#lines = [];
    this.#bytes = 0;
    this.#isWriting = true;
    this.#writeOn(Buffer.from(lines.join("")), lines.length);
  }

  /** A disk that takes a part gets the rest: half a line would spoil the next one too. */
  #writeOn(bytes: Buffer, lines: number): void {
    write(this.#fd, bytes, (error, written) => {
      if (error === null && written > 0 && written < bytes.length) {
        return this.#writeOn(bytes.subarray(written), lines);
      }
      this.#isWriting = false;
      if (error !== null) this.#drop(lines);
    });
  }

  #drop(lines: number): void {
    this.dropped += lines;
    this.#options.onDropped?.(lines);
  }

  /** Many lines share a millisecond, or a second. */
  #timeAt(nowMs: number): string {
    const timeMs = this.#format === "json" ? nowMs : nowMs - (nowMs % 1000);
    if (timeMs !== this.#timeMs) {
      this.#timeMs = timeMs;
      const iso = new Date(timeMs).toISOString();
      this.#time = this.#format === "json" ? iso : commonTime(iso);
    }
    return this.#time;
  }
}

const FLUSH_MS = 100;
const FLUSH_BYTES = 65_536;
const WAITING_BYTES_MAX = 8 * 1024 * 1024;
const LOOK_MS = 1_000;
