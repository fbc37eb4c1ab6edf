/**
 * Who a peer is by its certificate, once the TLS library has found that an authority of ours vouches
 * for it.
 *
 * A server must be the one for the address that was dialled. Where actors are verified, both sides
 * must name one (`urn:uuid:...`), and whoever is dialled must be the replica that is known there.
 * That a peer then speaks as no other is for those to see to who read its messages.
 */
import { X509Certificate } from "node:crypto";
import type { ActorId, Address } from "../../types.ts";
import { parseAddress } from "./address.ts";

/** What came of it: the actor that the certificate names (null = it is not asked), or why not. */
export type PeerVerdict = { readonly actorId: ActorId | null } | { readonly refusal: string };

/** Judges the leaf (DER; absent = none was shown) of whoever is at the other end. */
export type PeerJudge = (
  leaf: Uint8Array | undefined,
  end: { readonly remote: Address; readonly isOutgoing: boolean },
) => PeerVerdict;

/** What to hold a certificate to. */
export interface PeerRules {
  readonly checksServers: boolean;
  readonly verifiesActors: boolean;
  /** Whether the replica to be reached at an address may be this one. */
  readonly mayBe: (target: Address, actorId: ActorId) => boolean;
}

/** Makes a judge, which never throws. */
export function createPeerJudge({ checksServers, verifiesActors, mayBe }: PeerRules): PeerJudge {
  return (leaf, { remote, isOutgoing }) => {
    const certificate = leaf === undefined ? null : new X509Certificate(leaf);
    if (isOutgoing && checksServers) {
      const host = parseAddress(remote)?.host ?? remote;
      if (certificate?.checkIP(host) === undefined) {
        return { refusal: `certificate does not name ${host}` };
      }
    }
    if (!verifiesActors) return { actorId: null };
    const actorId = certificate === null ? null : actorOf(certificate);
    if (actorId === null) return { refusal: "certificate names no actor" };
    if (isOutgoing && !mayBe(remote, actorId)) {
      return { refusal: `certificate names ${actorId}, who is not the replica at ${remote}` };
    }
    return { actorId };
  };
}

/** Whether an actor may be at an address: one of the members there, or nobody is known there. O(members). */
export function mayBeAmong(
  members: readonly { readonly actor: { readonly id: ActorId; readonly addr: Address } }[],
  target: Address,
  actorId: ActorId,
): boolean {
  const there = members.filter(({ actor }) => actor.addr === target);
  return there.length === 0 || there.some(({ actor }) => actor.id === actorId);
}

/** The actor that a certificate names; null = none, or several. */
export function actorOf({ subjectAltName }: X509Certificate): ActorId | null {
  const names = [...(subjectAltName ?? "").matchAll(ACTOR_NAME)].map(([, id]) => id);
  return names.length === 1 ? (names[0]?.toLowerCase() ?? null) : null;
}

/** Node writes `URI:urn:uuid:...` between commas, and quotes a name that has one of them inside. */
const ACTOR_NAME = /(?:^|, )URI:urn:uuid:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=,|$)/gi;
