/** How a replica stands, for its API, its admin socket and people. */
import type { CertificateWatch } from "./certificates/certificate-watch.ts";
import type { ReplicaCore } from "../core/replica-core.ts";
import { lackingVersions } from "./replica-metrics.ts";

/**
 * Identity, members with round trips, heads, needs, origins that are braked, and why the store can
 * keep nothing (`fault`, null = it can), and the gossip certificate that expires first; plain JSON.
 */
export function statusOf(
  core: ReplicaCore,
  fault: string | null,
  certificate: CertificateWatch["view"],
): unknown {
  const { self, incarnation, records } = core.swim;
  return {
    actor: self.id,
    gossip: self.addr,
    incarnation,
    members: records.map(({ actor, state, incarnation: claimed }) => ({
      actor: actor.id,
      address: actor.addr,
      state,
      incarnation: claimed,
      rttMs: core.rings.rttMs(actor.addr),
      ring: core.rings.ring(actor.addr),
    })),
    heads: Object.fromEntries([...core.books.actors()].map((id) => [id, core.books.head(id)])),
    needs: lackingVersions(core),
    braked: core.brakes.origins,
    fault,
    certificate,
  };
}
