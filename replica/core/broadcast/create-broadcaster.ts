/** Makes the broadcast machine of the method that the config names. */
import type { Prng } from "#base/prng.ts";
import type { Changeset } from "../../types.ts";
import type { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import type { ChangeId } from "../wire/types.ts";
import { Broadcast } from "./broadcast.ts";
import { Plumtree } from "./plumtree.ts";
import type { TokenBucket } from "./token-bucket.ts";
import type { Broadcaster, BroadcastConfig } from "./types.ts";

/**
 * `config` is read again and again: its `clusterId` may be a getter. `books` say what need not be
 * asked for, the bucket holds the uplink's budget.
 */
export function createBroadcaster(
  config: BroadcastConfig,
  of: { readonly prng: Prng; readonly books: Bookkeeping; readonly bucket: TokenBucket },
): Broadcaster {
  const { prng, books, bucket } = of;
  if (config.method === "gossip") return new Broadcast(config, prng, bucket);
  return new Plumtree(config, { prng, bucket, isKnown: (id) => isKnown(books, id) });
}

/** Whether there is nothing to be had by asking: it is known, or no such change can be. */
function isKnown(books: Bookkeeping, id: ChangeId): boolean {
  const changeset: Changeset =
    id.kind === "full" ? { ...id, changes: [], ts: 0n } : { ...id, ts: null };
  const verdict = books.classify(changeset);
  return verdict === "known" || verdict === "invalid";
}
