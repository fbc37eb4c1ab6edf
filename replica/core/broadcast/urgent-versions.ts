/**
 * Judges received chunks by their versions: a version with one urgent chunk is urgent whole, from
 * that chunk on.
 */
import type { FullChangeset } from "../../types.ts";
import { hasUrgentChange } from "./urgency.ts";

/** `turned`: the first urgent chunk of a version in several; earlier ones may be waiting. */
export type UrgencyVerdict = "no" | "yes" | "turned";

/** The versions in several chunks of which one was urgent, the latest thousand. */
export class UrgentVersions {
  readonly #urgentColumns: Readonly<Record<string, readonly string[]>>;
  /** Oldest first. */
  readonly #versions = new Set<string>();

  constructor(urgentColumns: Readonly<Record<string, readonly string[]>>) {
    this.#urgentColumns = urgentColumns;
  }

  judge(changeset: FullChangeset): UrgencyVerdict {
    const { actorId, version, changes, seqs, lastSeq } = changeset;
    const isUrgent = hasUrgentChange(changes, this.#urgentColumns);
    if (seqs.start === 0 && seqs.end === lastSeq) return isUrgent ? "yes" : "no";
    const key = `${actorId} ${version}`;
    if (this.#versions.has(key)) return "yes";
    if (!isUrgent) return "no";
    this.#versions.add(key);
    for (const oldest of this.#versions) {
      if (this.#versions.size <= URGENT_VERSIONS_MAX) break;
      this.#versions.delete(oldest);
    }
    return "turned";
  }
}

/** Arbitrary; versions in several chunks that are arriving at one time are few. */
const URGENT_VERSIONS_MAX = 1000;
