/**
 * Remembers which changesets came by broadcast, so that copies are dropped before they cost a look
 * into bookkeeping or a place in the apply queue.
 *
 * Two generations: when the younger has half of the capacity, it becomes the older and the older is
 * forgotten. Forgetting too early costs one look-up in bookkeeping, nothing else.
 */
import type { Changeset } from "../../types.ts";
import type { ChangeId } from "../wire/types.ts";

/** A bounded set of changesets by (actor, version, seqs). */
export class SeenCache {
  readonly #generationMax: number;
  #young = new Set<string>();
  #old = new Set<string>();

  /** Remembers between half of `entriesMax` and `entriesMax` changesets. */
  constructor(entriesMax: number) {
    this.#generationMax = Math.max(1, Math.floor(entriesMax / 2));
  }

  /** Changesets remembered. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** Whether this very changeset is remembered. */
  has(changeset: Changeset | ChangeId): boolean {
    const key = changeKey(changeset);
    return this.#young.has(key) || this.#old.has(key);
  }

  /** Remembers it; false if it was remembered already. */
  add(changeset: Changeset | ChangeId): boolean {
    const key = changeKey(changeset);
    if (this.#young.has(key) || this.#old.has(key)) return false;
    this.#young.add(key);
    if (this.#young.size >= this.#generationMax) {
      this.#old = this.#young;
      this.#young = new Set();
    }
    return true;
  }

  /** Forgets it, so that its next copy counts as new; for one that could not be applied. */
  delete(changeset: Changeset | ChangeId): void {
    const key = changeKey(changeset);
    this.#young.delete(key);
    this.#old.delete(key);
  }
}

/** What tells one broadcast changeset from all others. */
export function changeKey(changeset: Changeset | ChangeId): string {
  if (changeset.kind === "empty") {
    const { start, end } = changeset.versions;
    return `${changeset.actorId} ${start}-${end}`;
  }
  const { start, end } = changeset.seqs;
  return `${changeset.actorId} ${changeset.version} ${start}-${end}`;
}
