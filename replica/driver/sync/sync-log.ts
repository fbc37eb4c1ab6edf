/** What the sync client tells, for the log and for whoever waits for a round. */
import type { Logger } from "#base/logger.ts";
import type { SyncClientEvent } from "../../core/sync/client-types.ts";

/** Who is told. */
export interface SyncLogOptions {
  readonly log: Logger;
  /** A round in which at least one server said what it has is over; what it applied. */
  readonly onSyncFinished: (appliedVersions: number) => void;
}

/** Follows the rounds of one sync client. */
export class SyncLog {
  readonly #options: SyncLogOptions;
  /** Changes that came and could not be taken. */
  #refusals = 0;
  /** Whether a server of the running round has said what it has. */
  #hasCompared = false;

  constructor(options: SyncLogOptions) {
    this.#options = options;
  }

  /** Takes one event of the client. */
  take(event: SyncClientEvent): void {
    const { log } = this.#options;
    if (event.kind === "sessionEnded") {
      this.#hasCompared ||= event.reason === "done" || event.reason === "nothing needed";
      return log.debug?.("sync-session-ended", `${event.peer.address}: ${event.reason}`);
    }
    if (event.kind === "refused") return this.#logRefused(event);
    if (event.kind === "ownVersionsUnknown") {
      const { peer, ownHead, head } = event;
      return log.error(
        "own-versions-unknown",
        `${peer.address} knows version ${ownHead} of ours and we only ${head}: the database is an` +
          " old copy. Stop this replica, remove its .run file, and start it: it then asks the others",
        { peer: peer.actorId, ownHead, head },
      );
    }
    const { receivedVersions, appliedVersions, servers } = event;
    if (this.#hasCompared) this.#options.onSyncFinished(appliedVersions);
    this.#hasCompared = false;
    const line = receivedVersions > 0 ? log.info : log.debug;
    line?.("sync-finished", `${receivedVersions} versions from ${servers} servers`, { ...event });
  }

  #logRefused({ actorId, version, reason, times }: SyncRefusal): void {
    this.#refusals += 1;
    // Once, then at powers of ten: what makes one may make thousands.
    if (!/^10*$/.test(String(this.#refusals))) return;
    this.#options.log.warn?.(
      "change-refused",
      `version ${version} of ${actorId} cannot be taken: ${reason}. It stays needed and is asked for` +
        " seldom; where it was written, write the row again",
      { actorId, version, times, refusals: this.#refusals },
    );
  }
}

type SyncRefusal = Extract<SyncClientEvent, { kind: "refused" }>;
