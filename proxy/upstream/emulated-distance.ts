/**
 * A TCP connection to somewhere far away, for the demo: everything takes a given time longer in
 * each direction. Only the fault-injection flag leads here; no production path does.
 *
 * Connecting takes one round trip more; bytes, the end and a close keep their order. Delivery is by
 * one queue per direction with due times.
 */
import { connect } from "node:net";
import { Duplex } from "node:stream";

import type { Upstream } from "../types.ts";

/** Dials `upstream` with `oneWayMs` added in each direction. Emits `connect` as a socket does. */
export function connectFarAway(upstream: Upstream, oneWayMs: number): Duplex {
  const near = connect({
    host: upstream.host,
    port: upstream.port,
    noDelay: true,
    autoSelectFamily: false,
  });
  const outward = new DelayLine(oneWayMs);
  const inward = new DelayLine(oneWayMs);
  const far = new Duplex({
    allowHalfOpen: false,
    read: () => near.resume(),
    write: (bytes: Buffer, _encoding, done) => {
      // Copied: the caller may use its buffer again as soon as `done` was called.
      const kept = Buffer.from(bytes);
      outward.push(() => near.write(kept));
      done();
    },
    final: (done) => {
      outward.push(() => near.end());
      done();
    },
    destroy: (error, done) => {
      outward.clear();
      inward.clear();
      near.destroy();
      done(error);
    },
  });
  near.on("connect", () => {
    inward.push(() => inward.push(() => far.emit("connect")));
  });
  near.on("data", (bytes: Buffer) => {
    inward.push(() => {
      if (!far.destroyed && !far.push(bytes)) near.pause();
    });
  });
  near.on("end", () => inward.push(() => far.push(null)));
  near.on("error", (error) => inward.push(() => far.destroy(error)));
  near.on("close", () => inward.push(() => far.destroy()));
  return far;
}

/** Runs things in order, each `delayMs` after it was pushed. */
class DelayLine {
  readonly #delayMs: number;
  readonly #waiting = new Set<NodeJS.Timeout>();

  constructor(delayMs: number) {
    this.#delayMs = delayMs;
  }

  /** Timers of one duration fire in the order they were set. */
  push(run: () => void): void {
    const timer = setTimeout(() => {
      this.#waiting.delete(timer);
      run();
    }, this.#delayMs);
    this.#waiting.add(timer);
  }

  clear(): void {
    for (const timer of this.#waiting) clearTimeout(timer);
    this.#waiting.clear();
  }
}
