/**
 * A cluster in which one broadcast method spreads messages, in virtual time: the model of Corrosion's
 * own Plumtree simulation.
 *
 * Replicas stand in 19 cities; a round trip takes 4 ms and 1 ms per 75 km of great circle; nothing is
 * lost, and neither processing nor queues nor batches cost time. The machines are the production
 * ones and exchange their real bytes.
 */
import { createPrng, type Prng } from "#base/prng.ts";
import { Plumtree } from "../replica/core/broadcast/plumtree.ts";
import type { PlumtreeConfig } from "../replica/core/broadcast/plumtree-types.ts";
import { BROADCAST_DEFAULTS, type BroadcastMember } from "../replica/core/broadcast/types.ts";
import { RingTable } from "../replica/core/ring-table.ts";
import { decodeUniFrame } from "../replica/core/wire/uni-payload.ts";
import { EventQueue } from "../replica/sim/event-queue.ts";
import type { FullChangeset } from "../replica/types.ts";

/** What is simulated. */
export interface TreeWorldOptions {
  readonly seed: number;
  readonly replicas: number;
  readonly messages: number;
  /** Virtual time between two messages; each has a random origin. */
  readonly everyMs: number;
  readonly plumtree: PlumtreeConfig;
  /** All cities hold as many replicas, instead of the shares in `CITIES`. */
  readonly isEqual: boolean;
}

/** What came of one message. */
export interface MessageTrack {
  readonly bornMs: number;
  /** Virtual ms until each other replica had it, in the order of arrival. */
  readonly delays: number[];
  readonly hops: number[];
  /** Virtual ms of the direct way to each other replica. */
  readonly directMs: readonly number[];
  /** Copies that arrived where it was already. */
  copies: number;
}

/** All replicas. */
export class TreeWorld {
  readonly tracks: MessageTrack[] = [];
  readonly machines: Plumtree[] = [];
  readonly #options: TreeWorldOptions;
  readonly #queue = new EventQueue();
  readonly #prng: Prng;
  readonly #members: BroadcastMember[];
  readonly #indexByAddress: ReadonlyMap<string, number>;
  readonly #oneWayMs: readonly (readonly number[])[];
  /** Replica n stands in the city at n modulo its length. */
  readonly #cities: readonly number[];
  readonly #wakeMs: number[];
  readonly #known = new WeakMap<Uint8Array, ReturnType<typeof decodeUniFrame>>();
  /** Index into `tracks` by origin and version. */
  readonly #trackByKey = new Map<string, number>();
  readonly #versions: number[];
  /** Eager peers per replica on average, at the first message and at the last. */
  eagerAtStart = 0;
  eagerAtEnd = 0;

  constructor(options: TreeWorldOptions) {
    const { seed, replicas } = options;
    this.#options = options;
    this.#prng = createPrng(seed);
    const places = CITIES.map(([latitude, longitude]) => ({ latitude, longitude }));
    this.#cities = CITIES.flatMap(([, , share], city) =>
      Array.from({ length: options.isEqual ? 1 : share }, () => city),
    );
    this.#oneWayMs = places.map((one) =>
      places.map((other) => (4 + kmBetween(one, other) / 75) / 2),
    );
    this.#wakeMs = Array.from({ length: replicas }, () => Infinity);
    this.#versions = Array.from({ length: replicas }, () => 0);
    this.#members = Array.from({ length: replicas }, (_, index) => ({
      actorId: drawActorId(this.#prng),
      address: `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}:8787`,
      clusterId: 0,
      ring: null,
    }));
    this.#indexByAddress = new Map(this.#members.map(({ address }, index) => [address, index]));
    for (let index = 0; index < replicas; index += 1) this.#addMachine(index);
  }

  /** Sends all messages and lets the last one arrive. */
  run(): void {
    const { messages, everyMs } = this.#options;
    for (let at = 0; at < messages; at += 1) {
      this.#queue.at(WARM_UP_MS + at * everyMs, () => this.#originate());
    }
    this.#queue.runUntil(WARM_UP_MS - 1);
    this.eagerAtStart = this.#averageEager();
    this.#queue.runUntil(WARM_UP_MS + messages * everyMs + SETTLE_MS);
    this.eagerAtEnd = this.#averageEager();
  }

  #addMachine(index: number): void {
    const { plumtree, seed } = this.#options;
    const self = this.#members[index] as BroadcastMember;
    const config = { ...BROADCAST_DEFAULTS, actorId: self.actorId, clusterId: 0 };
    const machine = new Plumtree(
      // The model has no waits, and no budget.
      {
        ...config,
        plumtree: { ...plumtree, coalesceMs: 0 },
        budgetBytesPerSecond: 1e12,
        inFlightMax: Infinity,
      },
      { prng: createPrng([seed, index]), isKnown: () => false },
    );
    this.machines.push(machine);
    const rings = new RingTable();
    const members = this.#members.map((member, other) => {
      rings.sample(member.address, 2 * this.#delay(index, other));
      const { address } = member;
      return { ...member, ring: rings.ring(address), rttMs: rings.rttMs(address) };
    });
    machine.handle({ kind: "members", members }, 0);
    this.#perform(index);
  }

  #originate(): void {
    const index = this.#prng.below(this.#options.replicas);
    const { actorId } = this.#members[index] as BroadcastMember;
    const version = (this.#versions[index] ?? 0) + 1;
    this.#versions[index] = version;
    this.#trackByKey.set(`${actorId} ${version}`, this.tracks.length);
    const bornMs = this.#queue.nowMs;
    const directMs = this.#members.map((_, other) => this.#delay(index, other)).toSpliced(index, 1);
    this.tracks.push({ bornMs, delays: [], hops: [], directMs, copies: 0 });
    const machine = this.machines[index] as Plumtree;
    machine.handle({ kind: "committed", changesets: [createChange(actorId, version)] }, bornMs);
    this.#perform(index);
  }

  #perform(index: number): void {
    const machine = this.machines[index] as Plumtree;
    const { nowMs } = this.#queue;
    for (const output of machine.drain()) {
      if (output.kind !== "send") continue;
      const target = this.#indexByAddress.get(output.target) as number;
      const { frames } = output;
      this.#queue.after(this.#delay(index, target), () => this.#receive(target, frames));
      machine.handle({ kind: "sent", id: output.id, ok: true }, nowMs);
    }
    const wakeMs = machine.deadlineMs();
    if (wakeMs >= (this.#wakeMs[index] ?? Infinity) || wakeMs === Infinity) return;
    this.#wakeMs[index] = wakeMs;
    this.#queue.at(wakeMs, () => {
      if (this.#wakeMs[index] !== wakeMs) return;
      this.#wakeMs[index] = Infinity;
      machine.handle({ kind: "tick" }, this.#queue.nowMs);
      this.#perform(index);
    });
  }

  #receive(index: number, frames: readonly Uint8Array[]): void {
    const machine = this.machines[index] as Plumtree;
    for (const frame of frames.toReversed()) {
      let decoded = this.#known.get(frame);
      if (decoded === undefined) this.#known.set(frame, (decoded = decodeUniFrame(frame)));
      if (!decoded.ok || decoded.value.payload.kind !== "plumtree") continue;
      const { message } = decoded.value.payload;
      const { nowMs } = this.#queue;
      if (message.kind !== "gossip") {
        machine.handle({ kind: "plumtree", message }, nowMs);
        continue;
      }
      if (message.body.kind !== "change") continue;
      const [changeset] = message.body.changesets as [FullChangeset];
      const track = this.tracks[this.#trackByKey.get(keyOf(changeset)) ?? -1] as MessageTrack;
      const isNews = !machine.hasSeen(changeset);
      if (isNews) {
        track.delays.push(nowMs - track.bornMs);
        track.hops.push(message.round + 1);
      } else {
        track.copies += 1;
      }
      const { round, sender } = message;
      const gossip = { round, sender };
      const { body } = decoded.value;
      machine.handle({ kind: "received", changeset, payload: null, body, gossip, isNews }, nowMs);
    }
    this.#perform(index);
  }

  #delay(one: number, other: number): number {
    const [from, to] = [one, other].map((index) => this.#cities[index % this.#cities.length] ?? 0);
    return this.#oneWayMs[from ?? 0]?.[to ?? 0] as number;
  }

  #averageEager(): number {
    const all = this.machines.reduce((sum, machine) => sum + machine.stats.plumtree.eagerPeers, 0);
    return all / this.machines.length;
  }
}

function keyOf({ actorId, version }: FullChangeset): string {
  return `${actorId} ${version}`;
}

function createChange(actorId: string, version: number): FullChangeset {
  const pk = new Uint8Array([1, 9, version & 127]);
  const change = { table: "t", pk, cid: "v", val: "value", colVersion: 1, seq: 0, cl: 1 };
  const seqs = { start: 0, end: 0 };
  return { kind: "full", actorId, version, changes: [change], seqs, lastSeq: 0, ts: 1n };
}

function drawActorId(prng: Prng): string {
  const hex = Array.from({ length: 4 }, () =>
    prng
      .below(2 ** 32)
      .toString(16)
      .padStart(8, "0"),
  );
  const all = hex.join("");
  const cuts = [0, 8, 12, 16, 20, 32];
  return cuts
    .slice(1)
    .map((end, at) => all.slice(cuts[at], end))
    .join("-");
}

interface Place {
  readonly latitude: number;
  readonly longitude: number;
}

/** Great-circle distance on a sphere of the Earth's mean radius (haversine). */
function kmBetween(one: Place, other: Place): number {
  const radians = Math.PI / 180;
  const [a, b] = [one.latitude * radians, other.latitude * radians];
  const half = Math.sin((b - a) / 2) ** 2;
  const width = Math.sin(((other.longitude - one.longitude) * radians) / 2) ** 2;
  return 2 * EARTH_KM * Math.asin(Math.sqrt(half + Math.cos(a) * Math.cos(b) * width));
}

const EARTH_KM = 6371;
/** Before the first message, so that everybody has chosen its peers. */
const WARM_UP_MS = 1000;
/** After the last one: two announcements and their Grafts. */
const SETTLE_MS = 1500;
/**
 * Latitude and longitude of 19 cities in which platforms of this kind have a site, and the share of
 * replicas in each. Corrosion's list is not known; with these shares its rules give about the
 * delivery times that its own simulation prints.
 */
const CITIES: readonly (readonly [latitude: number, longitude: number, share: number])[] = [
  [52.37, 4.9, 2], // Amsterdam
  [59.33, 18.07, 2], // Stockholm
  [19.08, 72.88, 1], // Mumbai
  [48.86, 2.35, 2], // Paris
  [32.78, -96.8, 4], // Dallas
  [40.74, -74.17, 4], // Newark
  [50.11, 8.68, 2], // Frankfurt
  [-23.55, -46.63, 1], // São Paulo
  [39.04, -77.49, 4], // Ashburn
  [-26.2, 28.05, 1], // Johannesburg
  [34.05, -118.24, 4], // Los Angeles
  [51.51, -0.13, 2], // London
  [35.68, 139.69, 1], // Tokyo
  [41.88, -87.63, 4], // Chicago
  [1.35, 103.82, 1], // Singapore
  [37.34, -121.89, 4], // San Jose
  [-33.87, 151.21, 1], // Sydney
  [43.65, -79.38, 4], // Toronto
  [25.76, -80.19, 4], // Miami
];
