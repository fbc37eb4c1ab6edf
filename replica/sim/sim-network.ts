/**
 * A network between simulated replicas: datagrams, one-way streams and two-way streams with
 * latency, loss, duplication, reordering, breaks and partitions, all from the seed.
 *
 * Streams keep QUIC's promises: frames arrive in order and whole, or the stream breaks. A datagram
 * may be lost, doubled or overtaken. A partition loses everything and breaks streams after an idle
 * time, a crash breaks them at once. That a one-way stream vanishes although its sender was told
 * that it was handed over is what happens when the receiver dies, or closes the connection.
 */
import type { Address } from "../types.ts";
import type { Prng } from "#base/prng.ts";
import type { SwimPacket } from "../core/swim/packet.ts";
import type { SessionMessage } from "../core/sync/messages.ts";
import type { EventQueue } from "./event-queue.ts";

/** What can go wrong, and how often; probabilities from 0 to 1. */
export interface NetworkFaults {
  readonly datagramLoss: number;
  readonly datagramDuplication: number;
  readonly uniLoss: number;
  /** Per message of a two-way stream. */
  readonly streamBreak: number;
  readonly latencyMs: { readonly min: number; readonly max: number };
  /** Added at random to each packet; datagrams overtake each other within it. */
  readonly jitterMs: number;
}

/** Who lives at an address. Called at the time of arrival. */
export interface NetworkEndpoint {
  readonly address: Address;
  onPacket(packet: SwimPacket): void;
  onFrames(frames: readonly Uint8Array[]): void;
  /** A peer opened a stream; returns false to refuse. */
  onStream(stream: StreamEnd): boolean;
}

/** One side of a two-way stream. Listeners are set by whoever holds it. */
export interface StreamEnd {
  readonly peer: Address;
  onMessage: (message: SessionMessage) => void;
  onFinished: () => void;
  onBroken: () => void;
  send(message: SessionMessage): void;
  finish(): void;
  abort(): void;
}

/** The network of one world. */
export class SimNetwork {
  readonly #queue: EventQueue;
  readonly #prng: Prng;
  readonly #endpoints = new Map<Address, NetworkEndpoint>();
  readonly #latencies = new Map<string, number>();
  readonly #pipes = new Set<Pipe>();
  /** Group of each address while the network is split; `null` = whole. */
  #groups: ReadonlyMap<Address, number> | null = null;
  faults: NetworkFaults;
  /** How often each fault happened. */
  readonly counts = { lost: 0, doubled: 0, framesLost: 0, broken: 0, cut: 0 };

  constructor(options: { queue: EventQueue; prng: Prng; faults: NetworkFaults }) {
    this.#queue = options.queue;
    this.#prng = options.prng;
    this.faults = options.faults;
  }

  /** Puts a replica on the network, in place of an earlier one at its address. */
  attach(endpoint: NetworkEndpoint): void {
    this.#endpoints.set(endpoint.address, endpoint);
  }

  /** Takes a replica off; its streams break. */
  detach(address: Address): void {
    this.#endpoints.delete(address);
    for (const pipe of this.#pipes) {
      if (pipe.source === address || pipe.target === address) this.#break(pipe, 0);
    }
  }

  /** Splits the network; `null` makes it whole. */
  partition(groups: ReadonlyMap<Address, number> | null): void {
    this.#groups = groups;
    for (const pipe of this.#pipes) {
      if (this.#isCut(pipe.source, pipe.target)) this.#break(pipe, IDLE_TIMEOUT_MS);
    }
  }

  sendPacket(link: Link, packet: SwimPacket): void {
    const { datagramLoss, datagramDuplication } = this.faults;
    if (this.#chance(datagramLoss)) {
      this.counts.lost += 1;
      return;
    }
    const copies = this.#chance(datagramDuplication) ? 2 : 1;
    this.counts.doubled += copies - 1;
    for (let copy = 0; copy < copies; copy += 1) {
      this.#arrive(link, (endpoint) => endpoint.onPacket(packet));
    }
  }

  /** `onSent` hears whether the frames were handed over. */
  sendFrames(link: Link, frames: readonly Uint8Array[], onSent: (ok: boolean) => void): void {
    if (this.#isCut(link.source, link.target) || !this.#endpoints.has(link.target)) {
      this.#queue.after(SEND_TIMEOUT_MS, () => onSent(false));
      return;
    }
    this.#queue.after(1, () => onSent(true));
    if (this.#chance(this.faults.uniLoss)) this.counts.framesLost += 1;
    else this.#arrive(link, (endpoint) => endpoint.onFrames(frames));
  }

  /** `onOpen` hears of our end, or of null when the peer could not be dialled. */
  open(link: Link, onOpen: (stream: StreamEnd | null) => void): void {
    const roundTripMs = 2 * this.delayMs(link);
    if (this.#isCut(link.source, link.target) || !this.#endpoints.has(link.target)) {
      this.#queue.after(DIAL_TIMEOUT_MS, () => onOpen(null));
      return;
    }
    this.#queue.after(roundTripMs, () => {
      const endpoint = this.#endpoints.get(link.target);
      if (endpoint === undefined || this.#isCut(link.source, link.target)) return onOpen(null);
      const pipe = this.#createPipe(link);
      if (endpoint.onStream(pipe.accepted)) onOpen(pipe.opened);
      else onOpen(null);
    });
  }

  /** Breaks the streams that `link.source` opened to `link.target`. */
  forget(link: Link): void {
    for (const pipe of this.#pipes) {
      if (pipe.source === link.source && pipe.target === link.target) this.#break(pipe, 0);
    }
  }

  /** One way, this time. */
  delayMs(link: Link): number {
    return this.baseLatencyMs(link) + this.#prng.next() * this.faults.jitterMs;
  }

  /** One way without jitter; the same in both directions and for the whole run. */
  baseLatencyMs({ source, target }: Link): number {
    const key = source < target ? `${source} ${target}` : `${target} ${source}`;
    const known = this.#latencies.get(key);
    if (known !== undefined) return known;
    const { min, max } = this.faults.latencyMs;
    const latency = min + this.#prng.next() * (max - min);
    this.#latencies.set(key, latency);
    return latency;
  }

  #arrive(link: Link, deliver: (endpoint: NetworkEndpoint) => void): void {
    this.#queue.after(this.delayMs(link), () => {
      const endpoint = this.#endpoints.get(link.target);
      if (endpoint === undefined) return;
      if (this.#isCut(link.source, link.target)) this.counts.cut += 1;
      else deliver(endpoint);
    });
  }

  #createPipe(link: Link): Pipe {
    const pipe = new Pipe(link, (from, deliver, isMessage) => {
      if (isMessage && this.#chance(this.faults.streamBreak)) return this.#break(pipe, 0);
      const arrivesMs = Math.max(from.lastArrivalMs, this.#queue.nowMs + this.delayMs(link));
      from.lastArrivalMs = arrivesMs;
      this.#queue.at(arrivesMs, () => {
        if (pipe.isBroken || this.#isCut(link.source, link.target)) return;
        deliver();
        if (pipe.isDone || pipe.isBroken) this.#pipes.delete(pipe);
      });
    });
    this.#pipes.add(pipe);
    return pipe;
  }

  #break(pipe: Pipe, afterMs: number): void {
    this.#pipes.delete(pipe);
    if (pipe.isBroken) return;
    pipe.isBroken = true;
    this.counts.broken += 1;
    for (const end of [pipe.opened, pipe.accepted]) {
      const delayMs = afterMs + this.#prng.next() * 10;
      this.#queue.after(delayMs, () => end.onBroken());
    }
  }

  #isCut(source: Address, target: Address): boolean {
    return this.#groups !== null && this.#groups.get(source) !== this.#groups.get(target);
  }

  #chance(probability: number): boolean {
    return probability > 0 && this.#prng.next() < probability;
  }
}

/** From where to where. */
export interface Link {
  readonly source: Address;
  readonly target: Address;
}

interface Direction {
  lastArrivalMs: number;
}

type Carry = (from: Direction, deliver: () => void, isMessage: boolean) => void;

/** A two-way stream. */
class Pipe {
  readonly source: Address;
  readonly target: Address;
  readonly opened: StreamEnd;
  readonly accepted: StreamEnd;
  isBroken = false;
  #finished = 0;

  constructor(link: Link, carry: Carry) {
    this.source = link.source;
    this.target = link.target;
    this.opened = createEnd(link.target);
    this.accepted = createEnd(link.source);
    this.#join({ from: this.opened, to: this.accepted, carry });
    this.#join({ from: this.accepted, to: this.opened, carry });
  }

  get isDone(): boolean {
    return this.#finished >= 2;
  }

  #join({ from, to, carry }: { from: StreamEnd; to: StreamEnd; carry: Carry }): void {
    const direction: Direction = { lastArrivalMs: 0 };
    from.send = (message) => {
      if (!this.isBroken) carry(direction, () => to.onMessage(message), true);
    };
    from.finish = () => {
      if (this.isBroken) return;
      carry(
        direction,
        () => {
          this.#finished += 1;
          to.onFinished();
        },
        false,
      );
    };
    from.abort = () => {
      if (this.isBroken) return;
      carry(
        direction,
        () => {
          this.isBroken = true;
          to.onBroken();
        },
        false,
      );
    };
  }
}

function createEnd(peer: Address): StreamEnd {
  const nothing = (): void => {};
  return {
    peer,
    onMessage: nothing,
    onFinished: nothing,
    onBroken: nothing,
    send: nothing,
    finish: nothing,
    abort: nothing,
  };
}

/** QUIC's idle timeout, shortened: nothing depends on it but the length of runs. */
const IDLE_TIMEOUT_MS = 10_000;
const SEND_TIMEOUT_MS = 5_000;
const DIAL_TIMEOUT_MS = 2_000;
