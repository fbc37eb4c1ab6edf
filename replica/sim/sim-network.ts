/**
 * A network between simulated replicas: connections that are dialled, cached and go stale, and on
 * them datagrams, one-way streams and two-way streams, with latency, loss, duplication, reordering,
 * breaks and partitions, all from the seed.
 *
 * As in QUIC, everything is sent on a connection that the sender dialled to one life of the peer.
 * When that life is over the sender does not know: what it sends is lost, though it was told that
 * it was handed over, until the connection idles out, the peer's successor answers with a stateless
 * reset (drawn per run: a Corrosion node never does), or `forget` says so. A partition shorter than
 * the idle timeout delays streams, which are repeated, and loses datagrams, which are not.
 */
import type { Address } from "../types.ts";
import type { Prng } from "#base/prng.ts";
import type { EventQueue } from "./event-queue.ts";
import { Pipe, type StreamEnd } from "./sim-stream.ts";

/** What can go wrong, and how often; probabilities from 0 to 1. */
export interface NetworkFaults {
  readonly datagramLoss: number;
  readonly datagramDuplication: number;
  /** One-way streams that vanish: the receiver died, or closed the connection. */
  readonly uniLoss: number;
  /** Per message of a two-way stream. */
  readonly streamBreak: number;
  /** Range from which the one-way latency of each pair is drawn. */
  readonly latencyMs: { readonly min: number; readonly max: number };
  /** Added at random to each packet; datagrams overtake each other within it. */
  readonly jitterMs: number;
  /** Whether a restarted peer tells senders that their connection is to its predecessor. */
  readonly hasStatelessReset: boolean;
}

/** Who lives at an address. Called at the time of arrival, never from inside a call. */
export interface NetworkEndpoint<Packet, Message> {
  readonly address: Address;
  onPacket(packet: Packet): void;
  onFrames(frames: readonly Uint8Array[], source: Address): void;
  /** A peer opened a stream and sent something on it; returns false to refuse. */
  onStream(stream: StreamEnd<Message>): boolean;
  /** The outgoing connection came up, or was lost, or could not be made. */
  onConnection(target: Address, state: "up" | "down"): void;
  /** A round trip of the outgoing connection. */
  onRtt(target: Address, rttMs: number): void;
}

/** From where to where. */
export interface Link {
  readonly source: Address;
  readonly target: Address;
}

/** The network of one world. */
export class SimNetwork<Packet, Message> {
  readonly #queue: EventQueue;
  readonly #prng: Prng;
  readonly #endpoints = new Map<Address, Life<Packet, Message>>();
  readonly #latencies = new Map<Address, Map<Address, number>>();
  /** Group of each address while the network is split; `null` = whole. */
  #groups: ReadonlyMap<Address, number> | null = null;
  faults: NetworkFaults;
  /** How often each fault happened. */
  readonly counts = {
    lost: 0,
    doubled: 0,
    framesLost: 0,
    broken: 0,
    cut: 0,
    repeated: 0,
    /** Packets and frames that met another life of the peer, or none. */
    stale: 0,
    reset: 0,
    idledOut: 0,
    forgotten: 0,
    dialsFailed: 0,
  };

  constructor(options: { queue: EventQueue; prng: Prng; faults: NetworkFaults }) {
    this.#queue = options.queue;
    this.#prng = options.prng;
    this.faults = options.faults;
  }

  /** Puts a replica on the network; its address must be free. */
  attach(endpoint: NetworkEndpoint<Packet, Message>): void {
    this.#endpoints.set(endpoint.address, { endpoint, targets: new Map() });
  }

  /**
   * Takes a replica off. A graceful end closes its connections, so that peers hear of it; after a
   * crash they find out by themselves.
   */
  detach(address: Address, isGraceful: boolean): void {
    const life = this.#endpoints.get(address);
    if (life === undefined) return;
    this.#endpoints.delete(address);
    const afterMs = isGraceful ? 0 : IDLE_TIMEOUT_MS;
    for (const { connection } of life.targets.values()) {
      if (connection !== null) this.#queue.after(afterMs, () => this.#end(connection));
    }
    for (const { targets } of this.#endpoints.values()) {
      const connection = targets.get(address)?.connection ?? null;
      if (connection?.target !== life) continue;
      this.#queue.after(afterMs, () => {
        if (this.#lose(connection)) this.counts.idledOut += isGraceful ? 0 : 1;
      });
    }
  }

  /** Splits the network; `null` makes it whole. */
  partition(groups: ReadonlyMap<Address, number> | null): void {
    this.#groups = groups;
    for (const { targets } of this.#endpoints.values()) {
      for (const { connection } of targets.values()) if (connection) this.#watchCut(connection);
    }
  }

  /** Fire and forget. */
  sendPacket(link: Link, packet: Packet): void {
    const { datagramLoss, datagramDuplication } = this.faults;
    if (this.#chance(datagramLoss)) {
      this.counts.lost += 1;
      return;
    }
    const copies = this.#chance(datagramDuplication) ? 2 : 1;
    this.counts.doubled += copies - 1;
    this.#reach(link, (connection) => {
      for (let copy = 0; connection !== null && copy < copies; copy += 1) {
        this.#queue.after(this.delayMs(link), () => {
          if (this.#isCut(link)) this.counts.cut += 1;
          else if (this.#isStale(connection)) this.#onStale(connection);
          else connection.target?.endpoint.onPacket(packet);
        });
      }
    });
  }

  /** `onSent` hears whether the frames were handed to a connection, which says nothing of arrival. */
  sendFrames(link: Link, frames: readonly Uint8Array[], onSent: (ok: boolean) => void): void {
    this.#reach(link, (connection) => {
      this.#queue.after(1, () => onSent(connection !== null));
      if (connection === null) return;
      if (this.#chance(this.faults.uniLoss)) this.counts.framesLost += 1;
      else this.#carryFrames(connection, frames, 0);
    });
  }

  /** `onOpen` hears of our end, or of null when the peer could not be dialled. */
  open(link: Link, onOpen: (stream: StreamEnd<Message> | null) => void): void {
    this.#reach(link, (connection) => {
      const pipe = connection === null ? null : this.#createPipe(connection);
      this.#queue.after(0, () => onOpen(pipe?.opened ?? null));
    });
  }

  /** Closes the connection, so that the next send dials anew; what waits for a dial is dialled anew. */
  forget(link: Link): void {
    const target = this.#endpoints.get(link.source)?.targets.get(link.target);
    if (target === undefined) return;
    target.failures = 0;
    target.retryAtMs = 0;
    const { connection } = target;
    if (connection === null) return;
    this.counts.forgotten += 1;
    const { waiting } = connection;
    connection.waiting = [];
    this.#lose(connection);
    for (const use of waiting) this.#reach(link, use);
  }

  /** One way, this time. */
  delayMs(link: Link): number {
    return this.baseLatencyMs(link) + this.#prng.next() * this.faults.jitterMs;
  }

  /** One way without jitter; the same in both directions and for the whole run. */
  baseLatencyMs({ source, target }: Link): number {
    const [one, other] = source < target ? [source, target] : [target, source];
    let row = this.#latencies.get(one);
    if (row === undefined) this.#latencies.set(one, (row = new Map()));
    let latency = row.get(other);
    if (latency === undefined) {
      const { min, max } = this.faults.latencyMs;
      latency = min + this.#prng.next() * (max - min);
      row.set(other, latency);
    }
    return latency;
  }

  // ---------------------------------------------------------------- connections

  /** Gives a connection to `use` once there is one, or null when there will be none. */
  #reach(link: Link, use: Use<Packet, Message>): void {
    const source = this.#endpoints.get(link.source);
    if (source === undefined) return;
    let target = source.targets.get(link.target);
    if (target === undefined) {
      target = { connection: null, failures: 0, retryAtMs: 0 };
      source.targets.set(link.target, target);
    }
    const known = target.connection;
    if (known?.state === "up") return use(known);
    if (known !== null) return void known.waiting.push(use);
    if (this.#queue.nowMs < target.retryAtMs) return use(null);
    target.connection = this.#dial({ link, source, waiting: [use] });
  }

  #dial(of: {
    link: Link;
    source: Life<Packet, Message>;
    waiting: Use<Packet, Message>[];
  }): Connection<Packet, Message> {
    const pipes = new Set<Pipe<Message>>();
    const progress = { target: null, state: "dialling", cutSinceMs: Infinity } as const;
    const connection: Connection<Packet, Message> = { ...of, ...progress, pipes };
    this.#queue.after(2 * this.delayMs(of.link), () => {
      const target = this.#endpoints.get(of.link.target);
      if (connection.state !== "dialling") return;
      if (target !== undefined && !this.#isCut(of.link)) return this.#establish(connection, target);
      this.#queue.after(DIAL_TIMEOUT_MS, () => this.#failDial(connection));
    });
    return connection;
  }

  #establish(connection: Connection<Packet, Message>, target: Life<Packet, Message>): void {
    const { link, source, waiting } = connection;
    if (!this.#isLive(source, link.source)) return;
    connection.state = "up";
    connection.target = target;
    connection.waiting = [];
    const entry = source.targets.get(link.target);
    if (entry) entry.failures = 0;
    source.endpoint.onConnection(link.target, "up");
    source.endpoint.onRtt(link.target, 2 * this.baseLatencyMs(link));
    for (const use of waiting) use(connection);
    this.#noteSignOfLife(target, link.source);
  }

  #failDial(connection: Connection<Packet, Message>): void {
    const { link, source, waiting } = connection;
    if (connection.state !== "dialling" || !this.#isLive(source, link.source)) return;
    connection.state = "lost";
    connection.waiting = [];
    this.counts.dialsFailed += 1;
    const entry = source.targets.get(link.target);
    if (entry?.connection === connection) {
      entry.connection = null;
      entry.failures += 1;
      const doubledMs = HOLD_BACK_MIN_MS * 2 ** Math.min(entry.failures - 1, 16);
      const holdBackMs = Math.min(HOLD_BACK_MAX_MS, doubledMs);
      entry.retryAtMs = this.#queue.nowMs + holdBackMs * (0.5 + this.#prng.next() / 2);
    }
    source.endpoint.onConnection(link.target, "down");
    for (const use of waiting) use(null);
  }

  /** A handshake came from `address`: dial it without waiting, and look whether ours is still good. */
  #noteSignOfLife(life: Life<Packet, Message>, address: Address): void {
    const entry = life.targets.get(address);
    if (entry === undefined) return;
    entry.retryAtMs = 0;
    const { connection } = entry;
    if (connection?.state === "up" && this.#isStale(connection)) this.#onStale(connection);
  }

  /** The source learns that its connection is gone; false when it knew. */
  #lose(connection: Connection<Packet, Message>): boolean {
    const { link, source } = connection;
    if (connection.state === "lost") return false;
    const wasUp = connection.state === "up";
    this.#end(connection);
    const entry = source.targets.get(link.target);
    if (entry?.connection === connection) entry.connection = null;
    if (!wasUp) return true;
    this.#queue.after(0, () => {
      if (this.#isLive(source, link.source)) source.endpoint.onConnection(link.target, "down");
    });
    return true;
  }

  /** Breaks what is on a connection; ends that are not alive any more do not listen. */
  #end(connection: Connection<Packet, Message>): void {
    connection.state = "lost";
    for (const pipe of connection.pipes) pipe.break({ opened: true, accepted: true });
  }

  #watchCut(connection: Connection<Packet, Message>): void {
    const { nowMs } = this.#queue;
    if (!this.#isCut(connection.link)) {
      connection.cutSinceMs = Infinity;
    } else if (connection.cutSinceMs === Infinity) {
      connection.cutSinceMs = nowMs;
      this.#queue.after(IDLE_TIMEOUT_MS, () => {
        if (connection.cutSinceMs !== nowMs || connection.state !== "up") return;
        if (this.#lose(connection)) this.counts.idledOut += 1;
      });
    }
  }

  #isLive(life: Life<Packet, Message>, address: Address): boolean {
    return this.#endpoints.get(address) === life;
  }

  #isStale({ target, link }: Connection<Packet, Message>): boolean {
    return target === null || !this.#isLive(target, link.target);
  }

  #onStale(connection: Connection<Packet, Message>): void {
    this.counts.stale += 1;
    const { link } = connection;
    if (!this.faults.hasStatelessReset || !this.#endpoints.has(link.target)) return;
    this.#queue.after(this.delayMs(link), () => {
      if (this.#lose(connection)) this.counts.reset += 1;
    });
  }

  // ---------------------------------------------------------------- streams

  #carryFrames(
    connection: Connection<Packet, Message>,
    frames: readonly Uint8Array[],
    waitMs: number,
  ): void {
    this.#queue.after(waitMs + this.delayMs(connection.link), () => {
      const fate = this.#fate(connection);
      const { endpoint } = connection.target ?? {};
      if (fate === "arrives") endpoint?.onFrames(frames, connection.link.source);
      else if (fate === "repeated") this.#carryFrames(connection, frames, REPEAT_AFTER_MS);
    });
  }

  /** Of stream data, which is repeated while its connection lives. */
  #fate(connection: Connection<Packet, Message>): "arrives" | "repeated" | "lost" {
    if (this.#isCut(connection.link)) {
      if (connection.state === "lost") return "lost";
      this.counts.repeated += 1;
      return "repeated";
    }
    if (!this.#isStale(connection)) return "arrives";
    this.#onStale(connection);
    return "lost";
  }

  #createPipe(connection: Connection<Packet, Message>): Pipe<Message> {
    const { link } = connection;
    const pipe: Pipe<Message> = new Pipe<Message>({
      ...link,
      network: {
        carry: ({ notBeforeMs, isRepeated }, arrive) => {
          const waitMs = isRepeated ? REPEAT_AFTER_MS : 0;
          const earliestMs = this.#queue.nowMs + waitMs + this.delayMs(link);
          const arrivesMs = Math.max(notBeforeMs, earliestMs);
          this.#queue.at(arrivesMs, arrive);
          return arrivesMs;
        },
        soon: (run) => this.#queue.after(this.#prng.next() * SOON_MS, run),
        fate: () => this.#fate(connection),
        isBreaking: () => {
          const isBreaking = this.#chance(this.faults.streamBreak);
          this.counts.broken += isBreaking ? 1 : 0;
          return isBreaking;
        },
        accept: () => connection.target?.endpoint.onStream(pipe.accepted) ?? false,
        ended: () => connection.pipes.delete(pipe),
      },
    });
    connection.pipes.add(pipe);
    return pipe;
  }

  #isCut({ source, target }: Link): boolean {
    return this.#groups !== null && this.#groups.get(source) !== this.#groups.get(target);
  }

  #chance(probability: number): boolean {
    return probability > 0 && this.#prng.next() < probability;
  }
}

/** A replica from its start to its end, and whom it has dialled. */
interface Life<Packet, Message> {
  readonly endpoint: NetworkEndpoint<Packet, Message>;
  readonly targets: Map<Address, Target<Packet, Message>>;
}

interface Target<Packet, Message> {
  connection: Connection<Packet, Message> | null;
  /** Dials that failed in a row. */
  failures: number;
  /** No dial before this time. */
  retryAtMs: number;
}

interface Connection<Packet, Message> {
  readonly link: Link;
  readonly source: Life<Packet, Message>;
  /** The life that answered the handshake; `null` while dialling. */
  target: Life<Packet, Message> | null;
  state: "dialling" | "up" | "lost";
  waiting: Use<Packet, Message>[];
  readonly pipes: Set<Pipe<Message>>;
  cutSinceMs: number;
}

type Use<Packet, Message> = (connection: Connection<Packet, Message> | null) => void;

/** QUIC's idle timeout, shortened: nothing depends on it but the length of runs. */
const IDLE_TIMEOUT_MS = 10_000;
/** Silence after which a dial is given up. */
const DIAL_TIMEOUT_MS = 2_000;
/** Pauses of the production transport between failed dials. */
const HOLD_BACK_MIN_MS = 500;
const HOLD_BACK_MAX_MS = 10_000;
/** QUIC's probe timeout backs off to about this on a path that is cut. */
const REPEAT_AFTER_MS = 300;
/** Time in which a driver hears of what happened on its own machine. */
const SOON_MS = 10;
