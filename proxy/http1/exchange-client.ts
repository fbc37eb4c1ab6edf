/**
 * The client's side as an exchange sees it: a port, so that exchange and connection do not import
 * each other.
 */
import type { PeerBlock } from "./core/head-writer.ts";

/** What an exchange asks of its client's connection. */
export interface ExchangeClient {
  readonly address: string;
  readonly peer: PeerBlock;
  /** Requests are sent on to HTTPS on this port; `null` = they are served. */
  readonly redirectPort: number | null;
  /** The current request is the last that the connection may carry. */
  readonly isLastRequest: boolean;
  /** Lines added to every response; empty = none. */
  readonly addedLines: Uint8Array;
  /** Writes; true = the client keeps up. After false wait for `clientDrained`. */
  write(bytes: Uint8Array): boolean;
  /** Bytes written before that still wait for the network. */
  readonly pendingBytes: number;
  /** Bytes have arrived that nobody has looked at yet. */
  readonly hasHeld: boolean;
  /** Whether `bytes` are valid during the call only; others may be kept or written on. */
  isLent(bytes: Buffer): boolean;
  /** Bytes that are not lent are still in use by their receiver: never read over them. */
  releaseBytes(bytes: Buffer): void;
  /** Feeds body bytes that arrived early to `requestBytes`; then `clientEnded` if that was all. */
  flushHeld(): void;
  /** Stops and resumes reading, for back-pressure. */
  setReading(isReading: boolean): void;
  /** The deadline of the current step. */
  setDeadline(ms: number): void;
  /** The response is out; false = close after it. */
  exchangeDone(isPersistent: boolean): void;
  /** Closes at once, so that nobody takes what was sent for whole. */
  cut(): void;
  /** Ends our sending side after what was written. */
  end(): void;
}

/** Bytes at hand: a head at `start`, and what follows it up to `end`. */
export interface Window {
  bytes: Buffer;
  start: number;
  end: number;
}
