/**
 * What a SWIM machine wants done, in order: packets with as much news as fit, and events.
 */
import type { ActorId, Address } from "../../types.ts";
import { type Actor, placeholderActor } from "./actor.ts";
import { memberBytes, packetBytes } from "./codec.ts";
import type { DisseminationQueue } from "./dissemination.ts";
import type { SwimEvent } from "./events.ts";
import type { Identity } from "./identity.ts";
import type { MemberList } from "./member-list.ts";
import type { MemberUpdate, SwimMessage, SwimPacket } from "./packet.ts";
import type { SwimStats } from "./stats.ts";

/** What a SWIM machine wants done. */
export type SwimOutput =
  | { readonly kind: "send"; readonly target: Address; readonly packet: SwimPacket }
  | { readonly kind: "notify"; readonly event: SwimEvent };

/** What packets are made from; shared with the machine. */
export interface OutboxOptions {
  readonly identity: Identity;
  readonly list: MemberList;
  readonly queue: DisseminationQueue;
  readonly stats: SwimStats;
  /** Greatest packet, bytes. */
  readonly sendBytesMax: number;
}

/** Outputs waiting to be drained. */
export class Outbox {
  readonly #options: OutboxOptions;
  #outputs: SwimOutput[] = [];

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /** Takes out everything queued so far. */
  drain(): SwimOutput[] {
    const outputs = this.#outputs;
    this.#outputs = [];
    return outputs;
  }

  notify(event: SwimEvent): void {
    this.#outputs.push({ kind: "notify", event });
  }

  /** Sends one packet; `urgent` goes in front of all the other news it carries. */
  send(target: Actor, message: SwimMessage, urgent: MemberUpdate | null = null): void {
    const { identity, stats } = this.#options;
    const bare: SwimPacket = {
      source: identity.actor,
      sourceIncarnation: identity.incarnation,
      target,
      message,
      members: null,
    };
    const packet = { ...bare, members: this.#newsFor(bare, urgent) };
    stats.packetsSent += 1;
    this.#outputs.push({ kind: "send", target: target.addr, packet });
  }

  /** Sends gossip to up to `count` random active members. */
  gossip(count: number, urgent: MemberUpdate | null = null): void {
    for (const member of this.#options.list.sampleActive(count)) {
      this.send(member.actor, { kind: "gossip" }, urgent);
    }
  }

  /** Announces us to whoever is at an address. */
  announceToAddress(address: Address): void {
    this.send(placeholderActor(address), { kind: "announce" });
  }

  /** Announces us to known replicas, whatever their state. */
  announceTo(members: readonly MemberUpdate[]): void {
    for (const member of members) this.send(member.actor, { kind: "announce" });
  }

  /**
   * A random part of the active members for `feed`, queued updates for the others; `null` where the
   * message carries none. A suspect is first of all told that it is one.
   */
  #newsFor(bare: SwimPacket, urgent: MemberUpdate | null): MemberUpdate[] | null {
    const { list, queue, sendBytesMax } = this.#options;
    const { target, message } = bare;
    if (message.kind === "announce" || message.kind === "turnUndead") return null;
    const room = sendBytesMax - packetBytes(bare) - COUNT_BYTES;
    if (message.kind === "feed") return this.#feedFor(target.id, room);
    const known = list.get(target.id);
    const first = urgent ?? (known?.state === "suspect" ? toUpdate(known) : null);
    if (first === null) return queue.take(room);
    return [first, ...queue.take(room - memberBytes(first), first.actor.id)];
  }

  #feedFor(targetId: ActorId, roomBytes: number): MemberUpdate[] {
    const feed: MemberUpdate[] = [];
    let room = roomBytes;
    for (const member of this.#options.list.sampleActive(FEED_MEMBERS_MAX, targetId)) {
      const bytes = memberBytes(member);
      if (bytes > room) continue;
      room -= bytes;
      feed.push(toUpdate(member));
    }
    return feed;
  }
}

/** A member as it is told to others, without what only concerns us. */
function toUpdate({ actor, incarnation, state }: MemberUpdate): MemberUpdate {
  return { actor, incarnation, state };
}

/** The count in front of the members. */
const COUNT_BYTES = 2;
/** More than fit into any packet: 1,150 bytes hold 41 of the smallest members and no header. */
const FEED_MEMBERS_MAX = 64;
