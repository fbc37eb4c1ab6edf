/**
 * The access log: one JSON line per request, written in batches so that a request never waits for
 * the disk. What a slow disk cannot take is dropped and counted rather than piled up.
 */
import { closeSync, openSync, write } from "node:fs";
import { errorText, PatinaError } from "#base/errors.ts";
import type { RequestSummary } from "./types.ts";

/** Appends to one file. */
export class AccessLog {
  /** Lines lost: too much was waiting, or the disk refused. */
  dropped = 0;
  readonly #fd: number;
  #lines: string[] = [];
  #bytes = 0;
  #isWriting = false;
  readonly #timer: NodeJS.Timeout;

  /** Opens the file for appending. Throws `CONFIG_INVALID` when it cannot be written. */
  constructor(path: string) {
    try {
      this.#fd = openSync(path, "a", 0o640);
    } catch (error) {
      throw new PatinaError("CONFIG_INVALID", `proxy.access_log: ${errorText(error)}`, {
        cause: error,
      });
    }
    this.#timer = setInterval(() => this.#flush(), FLUSH_MS);
    this.#timer.unref();
  }

  /** Takes one finished request. */
  write(summary: RequestSummary): void {
    if (this.#bytes > WAITING_BYTES_MAX) {
      this.dropped++;
      return;
    }
    const line = formatLine(summary, Date.now());
    this.#lines.push(line);
    this.#bytes += line.length;
    if (this.#bytes > FLUSH_BYTES) this.#flush();
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

  #flush(): void {
    if (this.#isWriting || this.#lines.length === 0) return;
    const lines = this.#lines;
    this.#lines = [];
    this.#bytes = 0;
    this.#isWriting = true;
    write(this.#fd, lines.join(""), (error) => {
      this.#isWriting = false;
      if (error) this.dropped += lines.length;
    });
  }
}

/** Milliseconds with three decimals: microseconds are as fine as they mean anything. */
function formatLine(summary: RequestSummary, nowMs: number): string {
  const { upstream } = summary;
  return `${JSON.stringify({
    time: new Date(nowMs).toISOString(),
    id: summary.requestId,
    client: summary.clientAddress,
    method: summary.method,
    host: summary.host,
    target: summary.target,
    status: summary.status,
    error: summary.errorCode,
    cause: summary.cause,
    machine: upstream?.machineId ?? "",
    region: upstream?.region ?? "",
    pick: summary.pickReason,
    attempts: summary.attempts,
    retry_skipped: summary.retrySkipped,
    reused: summary.wasReused,
    bytesIn: summary.bytesIn,
    bytesOut: summary.bytesOut,
    durationMs: round(summary.durationMs),
    connectMs: round(summary.connectMs),
    firstByteMs: round(summary.firstByteMs),
  })}\n`;
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

const FLUSH_MS = 100;
const FLUSH_BYTES = 65_536;
const WAITING_BYTES_MAX = 8 * 1024 * 1024;
