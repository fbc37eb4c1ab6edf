/**
 * The store worker's end of the change stream: connects readers' ports to the publisher that decides
 * what each of them is sent (`core/change-stream/stream-publisher.ts`), and tells watchers of commits.
 */
import type { MessagePort } from "node:worker_threads";
import {
  StreamPublisher,
  type PublisherStats,
  type StreamSource,
  type StreamStart,
} from "../../core/change-stream/stream-publisher.ts";
import { CommitWatchers } from "./commit-watchers.ts";
import type { PageCursor } from "./row-reader.ts";

/** Sends changes to all readers. */
export class ChangePublisher {
  /** Those that only want to know when to look. */
  readonly watchers = new CommitWatchers();
  /** Decides what is sent to whom; tests add readers without ports here. */
  readonly streams: StreamPublisher<PageCursor>;
  readonly #ports = new Set<MessagePort>();
  #position: () => number;

  constructor(source: StreamSource<PageCursor>) {
    this.streams = new StreamPublisher(source);
    this.#position = source.position;
  }

  /** Counters since start. */
  get stats(): PublisherStats {
    return this.streams.stats;
  }

  /** Number of readers. */
  get readerCount(): number {
    return this.streams.readerCount;
  }

  /** Takes over another source; every reader starts anew: its rows may have other columns. */
  replaceSource(source: StreamSource<PageCursor>): void {
    this.#position = source.position;
    this.streams.replaceSource(source);
    this.watchers.committed(this.#position());
  }

  /** Adds a reader; `onWork` is called whenever `step` has something to do. */
  subscribe(port: MessagePort, start: StreamStart, onWork: () => void): void {
    const reader = this.streams.add(start, (event) => port.postMessage(event));
    this.#ports.add(port);
    port.on("message", (credit: number) => {
      reader.grant(credit);
      onWork();
    });
    port.on("close", () => {
      this.#ports.delete(port);
      reader.end();
    });
    onWork();
  }

  /** After each commit: sends what is new to every reader that keeps up. */
  committed(): void {
    this.streams.committed();
    this.watchers.committed(this.#position());
  }

  /** Whether a reader waits for pages and may have one. */
  hasWork(): boolean {
    return this.streams.hasWork();
  }

  /** See `StreamPublisher.step`. */
  step(): void {
    this.streams.step();
  }

  /** Ends every reader. */
  close(): void {
    for (const port of this.#ports) port.close();
    this.#ports.clear();
    this.watchers.close();
  }
}
