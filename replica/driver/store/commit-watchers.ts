/**
 * Tells watchers that something was committed, and nothing else: what it was they read from the
 * database themselves, on a connection of their own.
 *
 * A watcher gets the local number of the last commit, and nothing more until it has answered with
 * any message; then the newest number, if there is a newer one. So it costs one small message for
 * however many commits, and one that is slow queues nothing.
 */
import type { MessagePort } from "node:worker_threads";

interface Watcher {
  readonly port: MessagePort;
  /** Whether the last number was answered. */
  isIdle: boolean;
  isDue: boolean;
}

/** All watchers of one store. */
export class CommitWatchers {
  readonly #watchers = new Set<Watcher>();
  #position = 0;

  /** Adds a watcher; it hears of commits from here on. */
  add(port: MessagePort): void {
    const watcher: Watcher = { port, isIdle: true, isDue: false };
    this.#watchers.add(watcher);
    port.on("message", () => {
      watcher.isIdle = true;
      if (watcher.isDue) this.#tell(watcher);
    });
    port.on("close", () => this.#watchers.delete(watcher));
  }

  /** After a commit, or after a change of the schema: `position` is the last local number. */
  committed(position: number): void {
    this.#position = position;
    for (const watcher of this.#watchers) {
      if (watcher.isIdle) this.#tell(watcher);
      else watcher.isDue = true;
    }
  }

  /** Ends every watcher. */
  close(): void {
    for (const watcher of this.#watchers) watcher.port.close();
    this.#watchers.clear();
  }

  #tell(watcher: Watcher): void {
    watcher.isIdle = false;
    watcher.isDue = false;
    watcher.port.postMessage(this.#position);
  }
}
