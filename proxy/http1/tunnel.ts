/**
 * What comes after a 101: bytes pass both ways without being looked at, except for where WebSocket
 * frames end on their way to the client. At a drain the client is told to go away (1001) between two
 * of them; its own answer to that passes on to the machine, which closes as if the client had left.
 *
 *   open ─► leaving (in the middle of a frame) ─► told ─► closed by either side, or by a deadline
 */
import { FrameCursor, GOING_AWAY } from "./core/websocket-frames.ts";
import type { Exchange } from "./exchange.ts";

/** The tunnel of one exchange; reused with it. */
export class Tunnel {
  readonly #exchange: Exchange;
  #frames: FrameCursor | null = null;
  #state: "open" | "leaving" | "told" = "open";

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** The protocol was switched. */
  start(isWebSocket: boolean): void {
    this.#frames = isWebSocket ? new FrameCursor() : null;
    this.#state = "open";
  }

  /** Bytes from the machine, valid during the call; false = the client is behind. */
  pass(bytes: Buffer, start: number, end: number): boolean {
    // After a close frame nothing may follow (RFC 6455 section 5.5.1).
    if (this.#state === "told") return true;
    const stop = this.#follow(bytes, start, end);
    const { client, record } = this.#exchange;
    record.bytesOut += stop - start;
    const keepsUp = client.write(Buffer.from(bytes.subarray(start, stop)));
    if (this.#state === "leaving" && this.#frames?.isAtBoundary) this.#tell();
    this.touch();
    return keepsUp;
  }

  /** Something moved: the idle limit begins anew. */
  touch(): void {
    if (this.#state === "told") return;
    this.#exchange.client.setDeadline(this.#exchange.parts.settings.times.tunnelIdleMs);
  }

  /** The edge is draining. Other protocols have no word for it: they go on until the deadline. */
  leave(): void {
    if (this.#frames === null || this.#state !== "open") return;
    this.#state = "leaving";
    if (this.#frames.isAtBoundary) this.#tell();
  }

  #follow(bytes: Buffer, start: number, end: number): number {
    if (this.#frames === null) return end;
    if (this.#state === "leaving") return this.#frames.toBoundary(bytes, start, end);
    this.#frames.advance(bytes, start, end);
    return end;
  }

  #tell(): void {
    const { client, parts, record } = this.#exchange;
    this.#state = "told";
    record.bytesOut += GOING_AWAY.length;
    client.write(GOING_AWAY);
    client.setDeadline(parts.settings.times.tunnelCloseMs);
  }
}
