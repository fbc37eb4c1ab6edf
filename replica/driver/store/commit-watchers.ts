/**
 * Tells watchers that something was committed, and nothing else: what it was they read from the
 * database themselves, on a connection of their own.
 *
 * A watcher gets the local number of the last commit, and nothing more until it has taken note. So it
 * costs one small message for however many commits, and one that is slow queues nothing. That it has
 * taken note it says in memory that both share, for a message would wake the store's thread.
 */
import type { MessagePort } from "node:worker_threads";

/**
 * What a watcher holds. It sets `isTold` to 0 with `Atomics.store` before it looks: what is
 * committed after that is told anew, what was before it sees. Closing the port ends the watch, and the
 * store's end closes it.
 */
export interface CommitWatch {
  /** Carries local numbers. */
  readonly port: MessagePort;
  /** One cell: 1 = a number was told and the watcher has not looked since. */
  readonly isTold: Int32Array;
}

/** All watchers of one store. */
export class CommitWatchers {
  readonly #watches = new Set<CommitWatch>();

  /** Adds a watcher; it hears of commits from here on. */
  add(watch: CommitWatch): void {
    this.#watches.add(watch);
    watch.port.on("close", () => this.#watches.delete(watch));
    // A port that nobody listens at is never closed by the other end.
    watch.port.on("message", () => undefined);
  }

  /** After a commit, or after a change of the schema: `position` is the last local number. */
  committed(position: number): void {
    for (const { port, isTold } of this.#watches) {
      if (Atomics.exchange(isTold, 0, 1) === 0) port.postMessage(position);
    }
  }

  /** Ends every watcher. */
  close(): void {
    for (const { port } of this.#watches) port.close();
    this.#watches.clear();
  }
}
