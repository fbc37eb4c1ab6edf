/**
 * Connections per upstream, counted with the other data-plane threads: in the slots of requests in
 * flight, where a thread that ends alone is taken out of, under keys of their own.
 */
import type { LoadSlots } from "../../routing/core/load-slots.ts";
import type { ProcessLimits } from "../listeners/core/process-limits.ts";
import type { ConnectionCounts } from "../types.ts";

/** The counts as one thread sees them; `slots` are those that its table uses. */
export function connectionCountsOf(slots: LoadSlots, limits: ProcessLimits): ConnectionCounts {
  return {
    hold: (key) => slots.hold(`connections ${key}`),
    letGo: (slot) => slots.letGo(slot),
    take: (slot, max) => slots.take(slot, max),
    give: (slot) => slots.give(slot),
    count: (slot) => slots.inFlight(slot),
    get refusals() {
      return limits.upstreamRefusals;
    },
    refused: () => limits.upstreamRefused(),
  };
}
