/**
 * For tests: endpoints of the QUIC core on a network in virtual time that loses, delays, reorders,
 * repeats and damages packets, all from a seed.
 */
import { createPrng, type Prng } from "#base/prng.ts";
import { Connection } from "./connection.ts";
import { PlaintextHandshake } from "./handshake.ts";
import { INITIAL, PacketHeader } from "./packet.ts";
import { PlaintextProtection } from "./protection.ts";
import { DEFAULT_PARAMETERS, type TransportParameters } from "./transport-parameters.ts";

/** What the network does to packets. Rates are shares, 0 to 1; durations milliseconds. */
export interface NetworkFaults {
  readonly delayMs: number;
  readonly jitterMs: number;
  readonly lossRate: number;
  readonly duplicateRate: number;
  readonly damageRate: number;
}

/** How to make an endpoint's connections. */
export interface EndpointOptions {
  readonly maxUdpPayload?: number;
  readonly parameters?: Partial<TransportParameters>;
}

/** What every endpoint here grants, unless told otherwise. */
export const TEST_PARAMETERS: TransportParameters = {
  ...DEFAULT_PARAMETERS,
  maxIdleTimeout: 30_000,
  initialMaxData: 4_000_000,
  initialMaxStreamDataBidiLocal: 1_250_000,
  initialMaxStreamDataBidiRemote: 1_250_000,
  initialMaxStreamDataUni: 1_250_000,
  initialMaxStreamsBidi: 32,
  initialMaxStreamsUni: 256,
  activeConnectionIdLimit: 4,
  maxDatagramFrameSize: 65_535,
};

/** A network with no faults. */
export const CLEAR_NETWORK: NetworkFaults = {
  delayMs: 5,
  jitterMs: 0,
  lossRate: 0,
  duplicateRate: 0,
  damageRate: 0,
};

/** One end: finds the connection of each packet, accepts new ones. */
export class TestEndpoint {
  readonly connections = new Set<Connection>();
  readonly accepted: Connection[] = [];
  /** Held back until then; packets and timers wait. */
  pausedUntilMs = 0;
  readonly #byId = new Map<string, Connection>();
  readonly #random: Prng;
  readonly #options: EndpointOptions;
  readonly #protection = new PlaintextProtection();
  readonly #header = new PacketHeader();

  constructor(random: Prng, options: EndpointOptions = {}) {
    this.#random = random;
    this.#options = options;
  }

  /** Starts a connection of ours. */
  connect(nowMs: number): Connection {
    return this.#create({ isClient: true, originalId: this.#bytes(8), peerId: null, nowMs });
  }

  /** Takes a packet from the network. */
  receive(datagram: Uint8Array, nowMs: number): void {
    const header = this.#header;
    if (!header.read(datagram, 0, 8)) return;
    const id = datagram.slice(header.dcidStart, header.dcidStart + header.dcidLength);
    const known = this.#byId.get(key(id));
    if (known !== undefined) return known.receive(datagram, nowMs);
    if (header.kind !== INITIAL || datagram.length < 1_200) return;
    const peerId = datagram.slice(header.scidStart, header.scidStart + header.scidLength);
    const connection = this.#create({ isClient: false, originalId: id, peerId, nowMs });
    connection.receive(datagram, nowMs);
    if (connection.packetsAccepted === 0) {
      // Damaged on its way: nobody is there.
      connection.abandon("not a handshake");
      this.connections.delete(connection);
      return;
    }
    this.#byId.set(key(id), connection);
    this.accepted.push(connection);
  }

  /** Whether packets to this id are for a connection here. */
  knows(id: Uint8Array): boolean {
    return this.#byId.has(key(id));
  }

  #create(role: {
    isClient: boolean;
    originalId: Uint8Array;
    peerId: Uint8Array | null;
    nowMs: number;
  }): Connection {
    const box: { connection: Connection | null } = { connection: null };
    const early: string[] = [];
    const connection = new Connection({
      ...role,
      parameters: { ...TEST_PARAMETERS, ...this.#options.parameters },
      maxUdpPayload: this.#options.maxUdpPayload ?? 1_350,
      datagramQueue: 64,
      ids: {
        issue: () => {
          const id = this.#bytes(8);
          if (box.connection === null) early.push(key(id));
          else this.#byId.set(key(id), box.connection);
          return { id, resetToken: this.#bytes(16) };
        },
        retire: (id) => this.#byId.delete(key(id)),
      },
      startHandshake: (parameters) =>
        new PlaintextHandshake(role.isClient, parameters, this.#protection),
    });
    box.connection = connection;
    for (const id of early) this.#byId.set(id, connection);
    this.connections.add(connection);
    return connection;
  }

  #bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.#random.below(256));
  }
}

/** Two endpoints and what lies between. */
export class TestNetwork {
  nowMs = 1_000;
  readonly left: TestEndpoint;
  readonly right: TestEndpoint;
  /** Packets that the network lost, repeated and damaged. */
  readonly harmed = { lost: 0, repeated: 0, damaged: 0 };
  /** Bytes that each side has sent. */
  readonly sentBytes = { left: 0, right: 0 };
  readonly random: Prng;
  faults: NetworkFaults;
  /** Sees every packet before it leaves, and may say that it is lost. */
  onPacket: (from: "left" | "right", packet: Uint8Array) => boolean = () => true;
  #flying: { atMs: number; to: TestEndpoint; packet: Uint8Array }[] = [];
  readonly #out = new Uint8Array(65_536);

  constructor(
    seed: number,
    faults: NetworkFaults = CLEAR_NETWORK,
    options: { left?: EndpointOptions; right?: EndpointOptions } = {},
  ) {
    this.random = createPrng([seed, 0x71756963]);
    this.faults = faults;
    this.left = new TestEndpoint(createPrng([seed, 1]), options.left);
    this.right = new TestEndpoint(createPrng([seed, 2]), options.right);
  }

  /** Puts a packet on its way, or not. */
  fly(from: "left" | "right", packet: Uint8Array): void {
    const { lossRate, duplicateRate, damageRate, delayMs, jitterMs } = this.faults;
    this.sentBytes[from] += packet.length;
    if (!this.onPacket(from, packet)) return;
    const to = from === "left" ? this.right : this.left;
    if (this.random.next() < lossRate) {
      this.harmed.lost += 1;
      return;
    }
    if (this.random.next() < damageRate) {
      this.harmed.damaged += 1;
      const at = this.random.below(packet.length);
      packet[at] = (packet[at] ?? 0) ^ (1 << this.random.below(8));
    }
    const copies = this.random.next() < duplicateRate ? 2 : 1;
    this.harmed.repeated += copies - 1;
    for (let copy = 0; copy < copies; copy += 1) {
      const atMs = this.nowMs + delayMs + this.random.next() * jitterMs;
      this.#flying.push({ atMs, to, packet: copy === 0 ? packet : packet.slice() });
    }
  }

  /** Lets both sides send what they have. */
  flush(): void {
    for (const side of ["left", "right"] as const) {
      if (this[side].pausedUntilMs > this.nowMs) continue;
      for (const connection of this[side].connections) this.#flushOne(side, connection);
    }
  }

  /** Goes on to the next packet or timer, but not beyond `endMs`. False: nothing happened. */
  step(endMs: number): boolean {
    this.flush();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { atMs, to } of this.#flying)
      nextMs = Math.min(nextMs, Math.max(atMs, to.pausedUntilMs));
    for (const side of [this.left, this.right]) {
      // What it has to send leaves when the pause is over.
      if (side.pausedUntilMs > this.nowMs) nextMs = Math.min(nextMs, side.pausedUntilMs);
      for (const connection of side.connections) {
        nextMs = Math.min(nextMs, Math.max(connection.deadlineMs, side.pausedUntilMs));
      }
    }
    this.nowMs = Math.max(this.nowMs, Math.min(nextMs, endMs));
    if (nextMs > endMs) return false;
    this.#land();
    for (const side of [this.left, this.right]) {
      if (side.pausedUntilMs > this.nowMs) continue;
      for (const connection of side.connections) {
        if (connection.deadlineMs <= this.nowMs) connection.onTimeout(this.nowMs);
        if (connection.phase === "closed") side.connections.delete(connection);
      }
    }
    return true;
  }

  /** Steps until the condition holds. False: it did not within so much virtual time. */
  until(condition: () => boolean, limitMs = 60_000): boolean {
    const endMs = this.nowMs + limitMs;
    while (!condition()) {
      if (!this.step(endMs)) return condition();
    }
    return true;
  }

  /** Lets so much time pass. */
  pass(durationMs: number): void {
    this.until(() => false, durationMs);
  }

  /** A connection whose handshake is complete, and its other end. */
  connected(): { client: Connection; server: Connection } {
    const client = this.left.connect(this.nowMs);
    const isDone = this.until(() => this.right.accepted.at(-1)?.phase === "open");
    const server = this.right.accepted.at(-1);
    if (!isDone || server === undefined || client.phase !== "open") {
      throw new Error(`no handshake: ${client.phase}, ${server?.phase}`);
    }
    return { client, server };
  }

  #flushOne(side: "left" | "right", connection: Connection): void {
    for (;;) {
      const length = connection.send(this.#out, this.nowMs);
      if (length === 0) return;
      this.fly(side, this.#out.slice(0, length));
    }
  }

  #land(): void {
    const landing = this.#flying.filter(
      ({ atMs, to }) => Math.max(atMs, to.pausedUntilMs) <= this.nowMs,
    );
    if (landing.length === 0) return;
    const landed = new Set(landing);
    this.#flying = this.#flying.filter((flight) => !landed.has(flight));
    landing.sort((first, second) => first.atMs - second.atMs);
    for (const { to, packet } of landing) to.receive(packet, this.nowMs);
  }
}

function key(id: Uint8Array): string {
  return String.fromCharCode(...id);
}
