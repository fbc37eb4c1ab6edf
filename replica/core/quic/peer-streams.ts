/**
 * The streams of one kind that the peer opens: which it may open, which it has, and which are over
 * (RFC 9000, sections 2.1 and 4.6).
 *
 * A stream that arrives opens all of its kind with lower ids. Those are remembered as open until
 * something of them arrives; whatever is neither that nor known otherwise is over.
 */

/** One kind of streams, counted from 0: the id is four times the index plus the kind's bits. */
export class PeerStreams {
  /** Streams that the peer may open in all. */
  granted: number;
  readonly #window: number;
  /** Streams opened, also by a later one. */
  #opened = 0;
  #closed = 0;
  /** Opened by a later one only. */
  readonly #unseen = new Set<number>();

  constructor(window: number) {
    this.granted = window;
    this.#window = window;
  }

  /** What a frame for a stream means that is not held: it begins, it is over, or it may not be. */
  arrive(index: number): "opens" | "over" | "forbidden" {
    if (index >= this.granted) return "forbidden";
    if (index < this.#opened) return this.#unseen.delete(index) ? "opens" : "over";
    for (let unseen = this.#opened; unseen < index; unseen += 1) this.#unseen.add(unseen);
    this.#opened = index + 1;
    return "opens";
  }

  /** A stream is over. */
  close(): void {
    this.#closed += 1;
  }

  /** Lets the peer open more if it has used up half. Returns whether it must be told. */
  grant(): boolean {
    if (this.granted - this.#closed > this.#window / 2) return false;
    const granted = this.#closed + this.#window;
    if (granted <= this.granted) return false;
    this.granted = granted;
    return true;
  }
}
