/**
 * Membership: which replicas there are and which of them live (SWIM, Das et al. 2002, with
 * suspicion; messages and rules as foca 0.19 and Corrosion use them, protocol reference, sections
 * 2.4 to 2.8).
 *
 * Once per period one member is pinged, in shuffled rounds. No ack in time: others are asked to
 * ping it; still none at the end of the period: it is suspected, and the suspicion spreads. The
 * suspect refutes with a higher incarnation, or is declared down. News ride on every packet. A
 * replica that learns that it counts as down takes a newer identity and so joins again by itself.
 *
 * ```
 *             first active member                    leave
 *  alone ------------------------------> connected --------> left (silent)
 *    ^                                       |
 *    '------------- last one down -----------'
 * ```
 *
 * Deviations from foca, none visible as a format:
 * - Whoever hears of a suspicion starts its timer, not the prober alone (as in the paper), so that
 *   a suspicion outlives its prober.
 * - A packet to a suspect always tells it so first, so that it can refute at once.
 * - A failed probe is followed by an announcement to the bare address: a restarted peer drops what
 *   is meant for its earlier identity, and answers this.
 * - A machine that was not run for a while moves its deadlines: it could not have heard an ack.
 * - News that we know better than are answered with what we know, once.
 * - Losing the last member starts the bootstrap schedule anew.
 * - While we are late ourselves, probes and suspicions take longer (`awareness.ts`).
 *
 * Not here: sockets, names of bootstrap hosts, persistence (the driver's).
 */
import { assert } from "#base/errors.ts";
import type { Machine } from "#base/machine.ts";
import type { Prng } from "#base/prng.ts";
import { type DueTimer, TimerTable } from "#base/timer-table.ts";
import type { ActorId, Address } from "../../types.ts";
import { type Actor, isPeerOf, isSameActor, isSameReplica, NIL_ACTOR_ID } from "./actor.ts";
import { canonicalAddress } from "./address.ts";
import { Announcer } from "./announcer.ts";
import { Awareness } from "./awareness.ts";
import type { SwimConfig } from "./config.ts";
import type { RenewalReason } from "./events.ts";
import { Identity } from "./identity.ts";
import type { Member } from "./member-list.ts";
import { Membership, type GossipState, type MemberTimer } from "./membership.ts";
import { Outbox, type SwimOutput } from "./outbox.ts";
import type { MemberUpdate, SwimMessage, SwimPacket } from "./packet.ts";
import { nextLeg, Prober, type RelayedMessage } from "./probe.ts";
import { createSwimStats, type PacketRefusal, type SwimStats } from "./stats.ts";
import type { SwimInput, SwimOptions } from "./swim-input.ts";

type TimerName =
  | "bootstrap"
  | "probe"
  | "indirectProbe"
  | "gossip"
  | "announceToActive"
  | "announceToDown"
  | MemberTimer
  | "rejoin"
  | "renew";

/** One replica's view of the membership. */
export class Swim implements Machine<SwimInput, SwimOutput> {
  readonly #config: SwimConfig;
  readonly #prng: Prng;
  readonly #stampTs: (nowMs: number) => bigint;
  readonly #membership: Membership<TimerName>;
  readonly #awareness: Awareness;
  readonly #announcer: Announcer;
  readonly #timers = new TimerTable<TimerName>();
  readonly #stats = createSwimStats();
  readonly #outbox: Outbox;
  readonly #identity: Identity;
  #phase: "alone" | "connected" | "left" = "alone";
  readonly #prober = new Prober();
  /** No renewal before this time, except on request: two replicas of one id must not race. */
  #renewalAllowedMs = Number.NEGATIVE_INFINITY;

  constructor(options: SwimOptions) {
    const address = canonicalAddress(options.self.addr);
    assert(address.ok && address.value === options.self.addr, "our address is canonical");
    assert(options.self.id !== NIL_ACTOR_ID, "our actor id is not nil");
    this.#config = options.config;
    this.#prng = options.prng;
    this.#stampTs = options.stampTs;
    const identity = new Identity(options.self);
    this.#identity = identity;
    this.#awareness = new Awareness(options.config.awarenessMax);
    this.#membership = new Membership<TimerName>({
      config: options.config,
      prng: options.prng,
      awareness: this.#awareness,
      identity,
      timers: this.#timers,
      stats: this.#stats,
      notify: (event) => this.#outbox.notify(event),
    });
    this.#outbox = new Outbox({
      identity,
      list: this.#membership.list,
      queue: this.#membership.queue,
      stats: this.#stats,
      sendBytesMax: options.config.sendBytesMax,
    });
    this.#announcer = new Announcer(this.#config.announcer, this.#prng);
  }

  handle(input: SwimInput, nowMs: number): void {
    if (this.#phase === "left") {
      if (input.kind === "received") this.#refuse("afterLeaving");
      return;
    }
    this.#forgiveOversleep(nowMs);
    this.#dispatch(input, nowMs);
    this.#armGossip(nowMs);
  }

  drain(): SwimOutput[] {
    return this.#outbox.drain();
  }

  deadlineMs(): number {
    return this.#timers.deadlineMs();
  }

  /** Our current identity. */
  get self(): Actor {
    return this.#identity.actor;
  }

  /** Our current incarnation; 0 after a renewal. */
  get incarnation(): number {
    return this.#identity.incarnation;
  }

  /** Members that are alive or suspect, of any cluster id; a snapshot. */
  get members(): readonly Member[] {
    return this.#membership.list.active;
  }

  /** The members to exchange state with: active, of our cluster id and member id. O(members). */
  get peers(): readonly Member[] {
    return this.members.filter((member) => isPeerOf(this.self, member.actor));
  }

  /** Every record, down ones included: what to save for `restore`. O(members). */
  get records(): readonly Member[] {
    return this.#membership.list.all;
  }

  /** What is known of one replica, down or not. */
  memberById(id: ActorId): Member | undefined {
    return this.#membership.list.get(id);
  }

  /** Active members and ourselves. */
  get clusterSize(): number {
    return this.members.length + 1;
  }

  /** Whether at least one other replica is active. */
  get isConnected(): boolean {
    return this.#phase === "connected";
  }

  /** How late we are ourselves: 0 = well, at most 7. Probes and suspicions take this + 1 times. */
  get awareness(): number {
    return this.#awareness.score;
  }

  /** How news about members is spread. */
  get gossip(): GossipState {
    return this.#membership.gossip;
  }

  /** Counters; a live view. */
  get stats(): Readonly<SwimStats> {
    return this.#stats;
  }

  #dispatch(input: SwimInput, nowMs: number): void {
    switch (input.kind) {
      case "start":
        this.#setBootstrap(input.bootstrap);
        return this.#announceToBootstrap(nowMs);
      case "received":
        return this.#onPacket(input.packet, input.packetBytes, nowMs);
      case "tick":
        for (const timer of this.#timers.due(nowMs)) this.#onTimer(timer, nowMs);
        return;
      case "bootstrap":
        for (const address of this.#setBootstrap(input.addresses))
          this.#outbox.announceToAddress(address);
        return;
      case "restore":
        return this.#restore(input.members, nowMs);
      case "rejoin":
        return this.#renew("requested", nowMs);
      case "changeCluster":
        return this.#renew("clusterChanged", nowMs, input.clusterId);
      case "leave":
        return this.#leave();
    }
  }

  // ------------------------------------------------------------------ receiving

  #onPacket(packet: SwimPacket, bytes: number, nowMs: number): void {
    const { source, sourceIncarnation, message } = packet;
    this.#stats.packetsReceived += 1;
    if (bytes > this.#config.receiveBytesMax) return this.#refuse("tooLarge");
    if (source.id === this.self.id || source.id === NIL_ACTOR_ID) return this.#refuse("badSource");
    if (!this.#isForUs(packet)) return this.#refuse("notForUs");
    const isWelcome = this.#apply(
      { actor: source, incarnation: sourceIncarnation, state: "alive" },
      source.id,
      nowMs,
    );
    if (!isWelcome) return this.#onPacketFromDown(packet, nowMs);
    for (const member of packet.members ?? []) this.#apply(member, source.id, nowMs);
    this.#adjustPhase(nowMs);
    if (this.#phase === "connected") this.#answer(source, message, nowMs);
  }

  #isForUs(packet: SwimPacket): boolean {
    const { target, message } = packet;
    if (isSameActor(target, this.self)) return true;
    if (target.id === this.self.id) this.#membership.noteOwnIdentity({ actor: target });
    return message.kind === "announce" && isSameReplica(target, this.self);
  }

  /** The sender must learn that its identity is void; if it says the same of us, we go first. */
  #onPacketFromDown(packet: SwimPacket, nowMs: number): void {
    this.#refuse("fromDown");
    const before = this.self;
    if (packet.message.kind === "turnUndead") {
      this.#onDeclaredDown(nowMs);
      // Two replicas that call each other down, both held back from renewing, would not stop.
      if (this.self === before) return;
    }
    this.#outbox.send(packet.source, { kind: "turnUndead" });
  }

  #answer(source: Actor, message: SwimMessage, nowMs: number): void {
    switch (message.kind) {
      case "ping":
        return this.#outbox.send(source, { kind: "ack", probe: message.probe });
      case "ack":
        if (!this.#prober.receiveAck(source, message.probe)) return;
        this.#stats.probesAcked += 1;
        return this.#awareness.improve();
      case "pingReq":
      case "indirectPing":
      case "indirectAck":
        return this.#relay(source, message);
      case "forwardedAck":
        return this.#onForwardedAck(source, { subject: message.subject, number: message.probe });
      case "announce":
        return this.#outbox.send(source, { kind: "feed" });
      case "turnUndead":
        return this.#onDeclaredDown(nowMs);
      case "feed":
      case "gossip":
      case "broadcast":
        return;
    }
  }

  /** A peer that names ourselves, or nobody, as the other end is confused: nothing to relay. */
  #relay(source: Actor, message: RelayedMessage): void {
    const { id } = message.subject;
    if (id === this.self.id || id === NIL_ACTOR_ID) return;
    const leg = nextLeg(source, message);
    this.#outbox.send(leg.target, leg.message);
  }

  #onForwardedAck(helper: Actor, ack: { subject: Actor; number: number }): void {
    if (!this.#prober.receiveForwardedAck(helper, ack)) return;
    this.#stats.probesAckedIndirectly += 1;
    this.#awareness.improve();
  }

  #refuse(reason: PacketRefusal): void {
    this.#stats.packetsRefused[reason] += 1;
  }

  // ------------------------------------------------------------------ news

  /** Takes news about anyone; returns whether the identity they are about counts as active. */
  #apply(news: MemberUpdate, teller: ActorId, nowMs: number): boolean {
    const verdict = this.#membership.apply(news, teller, nowMs);
    if (verdict === "aboutSelf") this.#onNewsOfSelf(news, nowMs);
    return verdict !== "inactive";
  }

  #onNewsOfSelf(news: MemberUpdate, nowMs: number): void {
    if (news.state === "down") return this.#onDeclaredDown(nowMs);
    if (news.state === "alive") return;
    switch (this.#identity.refute(news.incarnation)) {
      case "stale":
        return;
      case "exhausted":
        return this.#renew("incarnationsExhausted", nowMs);
      case "refuted":
        this.#stats.refutations += 1;
        this.#awareness.worsen();
        this.#outbox.notify({ kind: "refuted", incarnation: this.incarnation });
        return this.#outbox.gossip(this.#config.indirectProbes);
    }
  }

  // ------------------------------------------------------------------ identity and phase

  #onDeclaredDown(nowMs: number): void {
    if (nowMs >= this.#renewalAllowedMs) {
      this.#awareness.worsen();
      return this.#renew("declaredDown", nowMs);
    }
    if (!this.#timers.has("renew")) this.#timers.set("renew", this.#renewalAllowedMs);
  }

  /** Takes an identity newer than every one of ours that is known, and tells some members. */
  #renew(reason: RenewalReason, nowMs: number, clusterId = this.self.clusterId): void {
    const before = this.#identity.renew(this.#stampTs(nowMs), clusterId);
    this.#prober.end();
    this.#timers.clear("renew");
    this.#timers.clear("indirectProbe");
    this.#renewalAllowedMs = nowMs + this.#config.probePeriodMs;
    this.#stats.renewals += 1;
    this.#membership.spread({ actor: before, incarnation: 0, state: "down" });
    this.#outbox.notify({ kind: "identityRenewed", before, after: this.self, reason });
    this.#outbox.gossip(this.#config.indirectProbes);
  }

  #restore(members: readonly MemberUpdate[], nowMs: number): void {
    const { rejoinAfterRestoreMs } = this.#config;
    for (const member of members) {
      if (member.state !== "suspect") this.#apply(member, this.self.id, nowMs);
    }
    this.#adjustPhase(nowMs);
    if (rejoinAfterRestoreMs === null || this.#phase !== "connected") return;
    const { min, max } = rejoinAfterRestoreMs;
    this.#timers.set("rejoin", nowMs + min + this.#prng.next() * (max - min));
  }

  #leave(): void {
    const gone: MemberUpdate = {
      actor: this.self,
      incarnation: this.incarnation,
      state: "down",
    };
    this.#outbox.gossip(this.#config.indirectProbes, gone);
    this.#phase = "left";
    this.#timers.clearAll();
    this.#outbox.notify({ kind: "left" });
  }

  #adjustPhase(nowMs: number): void {
    const { probePeriodMs, announceToActive, announceToDown } = this.#config;
    const hasActive = this.members.length > 0;
    if (this.#phase === "alone" && hasActive) {
      this.#phase = "connected";
      // A random first delay, so that replicas started together do not probe in step.
      this.#timers.set("probe", nowMs + this.#prng.next() * probePeriodMs);
      this.#timers.set("announceToActive", nowMs + announceToActive.periodMs);
      this.#timers.set("announceToDown", nowMs + announceToDown.periodMs);
      this.#outbox.notify({ kind: "connected" });
    } else if (this.#phase === "connected" && !hasActive) {
      this.#phase = "alone";
      this.#prober.end();
      for (const name of CONNECTED_TIMERS) this.#timers.clear(name);
      this.#announcer.restart();
      this.#timers.set("bootstrap", nowMs + this.#announcer.nextDelayMs());
      this.#outbox.notify({ kind: "disconnected" });
    }
  }

  // ------------------------------------------------------------------ timers

  /** Time in which this machine was not run counts against nobody: acks may lie unread. */
  #forgiveOversleep(nowMs: number): void {
    const lateMs = nowMs - this.#timers.deadlineMs();
    if (lateMs <= this.#config.probePeriodMs / 2) return;
    this.#stats.oversleeps += 1;
    this.#awareness.worsen();
    this.#membership.postponeAll(lateMs);
  }

  #onTimer(timer: DueTimer<TimerName>, nowMs: number): void {
    // An earlier timer of the same tick may have taken the last member away.
    if (this.#phase !== "connected" && CONNECTED_TIMERS.includes(timer.name)) return;
    const { announceToActive, announceToDown } = this.#config;
    switch (timer.name) {
      case "bootstrap":
        return this.#announceToBootstrap(nowMs);
      case "probe":
        return this.#onProbePeriod(nowMs);
      case "indirectProbe":
        return this.#probeIndirectly();
      case "gossip":
        return this.#outbox.gossip(this.#config.gossip.members);
      case "announceToActive":
        this.#outbox.announceTo(this.#membership.list.sampleActive(announceToActive.members));
        return this.#timers.set("announceToActive", nowMs + announceToActive.periodMs);
      case "announceToDown":
        this.#outbox.announceTo(this.#membership.list.sampleDown(announceToDown.members));
        return this.#timers.set("announceToDown", nowMs + announceToDown.periodMs);
      case "suspicion":
        return this.#onSuspicionExpired(timer.key, nowMs);
      case "forgetDown":
        return this.#membership.list.forgetDown(timer.key);
      case "rejoin":
        return this.#renew("restored", nowMs);
      case "renew":
        return this.#renew("declaredDown", nowMs);
    }
  }

  /** Gives the verdict on the last probe and begins the next. */
  #onProbePeriod(nowMs: number): void {
    const silent = this.#prober.end();
    if (silent !== null) this.#onProbeFailed(silent, nowMs);
    const { probePeriodMs, probeRttMs } = this.#config;
    this.#timers.set("probe", nowMs + this.#awareness.stretch(probePeriodMs));
    const target = this.#membership.list.nextToProbe();
    if (target === null) return;
    this.#timers.set("indirectProbe", nowMs + this.#awareness.stretch(probeRttMs));
    this.#outbox.send(target.actor, { kind: "ping", probe: this.#prober.begin(target) });
  }

  #onProbeFailed(target: Member, nowMs: number): void {
    const { actor, incarnation } = target;
    this.#stats.probesFailed += 1;
    // Renamed or forgotten meanwhile: the verdict is about an identity that is gone.
    if (!this.#membership.list.has(actor)) return;
    // Whoever others suspect too says nothing about us.
    const known = this.#membership.list.get(actor.id);
    if (known?.state === "alive") this.#awareness.worsen();
    this.#apply({ actor, incarnation, state: "suspect" }, this.self.id, nowMs);
    this.#outbox.announceToAddress(actor.addr);
  }

  #probeIndirectly(): void {
    const silent = this.#prober.unanswered;
    if (silent === null) return;
    const { actor, number } = silent;
    const count = this.#config.indirectProbes;
    for (const helper of this.#membership.list.sampleActive(count, actor.id)) {
      this.#prober.noteHelper(helper.actor);
      this.#outbox.send(helper.actor, { kind: "pingReq", subject: actor, probe: number });
    }
  }

  /** The timer was cleared by every refutation, so the suspicion stands. */
  #onSuspicionExpired(id: ActorId, nowMs: number): void {
    const member = this.#membership.list.get(id);
    if (member?.state !== "suspect") return;
    if (this.#membership.extendSuspicion(id, nowMs)) return;
    const { actor, incarnation } = member;
    this.#apply({ actor, incarnation, state: "down" }, this.self.id, nowMs);
    this.#outbox.send(actor, { kind: "turnUndead" });
    this.#adjustPhase(nowMs);
  }

  // ------------------------------------------------------------------ sending

  #setBootstrap(addresses: readonly Address[]): Address[] {
    const { added, refused } = this.#announcer.setBootstrap(addresses, this.self.addr);
    this.#stats.badAddresses += refused;
    return added;
  }

  #announceToBootstrap(nowMs: number): void {
    const known = () =>
      this.#prng.sample(this.records, FALLBACK_MEMBERS).map((member) => member.actor.addr);
    for (const address of this.#announcer.targets(known)) this.#outbox.announceToAddress(address);
    this.#timers.set("bootstrap", nowMs + this.#announcer.nextDelayMs());
  }

  #armGossip(nowMs: number): void {
    if (
      this.#phase !== "connected" ||
      this.#membership.queue.size === 0 ||
      this.#timers.has("gossip")
    )
      return;
    this.#timers.set("gossip", nowMs + this.#config.gossip.periodMs);
  }
}

/** Members announced to when there is no bootstrap address; Corrosion's figure. */
const FALLBACK_MEMBERS = 5;
/** Timers that run only while there is somebody to talk to. */
const CONNECTED_TIMERS: readonly TimerName[] = [
  "probe",
  "indirectProbe",
  "gossip",
  "announceToActive",
  "announceToDown",
];
