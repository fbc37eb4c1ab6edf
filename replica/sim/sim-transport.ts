/**
 * The `Transport` port on the simulated network: what the network promises in the terms of the
 * port, so that the suite that QUIC passes can be run on it.
 *
 * Simulated replicas do not go through it: they pass messages, not bytes, and wait for no promise.
 */
import { PatinaError } from "#base/errors.ts";
import type { Address, BiStream, Transport, TransportEvents } from "../types.ts";
import type { EventQueue } from "./event-queue.ts";
import type { NetworkEndpoint, SimNetwork } from "./sim-network.ts";
import type { StreamEnd } from "./sim-stream.ts";

/** A network that carries bytes. */
export type ByteNetwork = SimNetwork<Sent, Uint8Array>;

/** A datagram and who sent it. */
interface Sent {
  readonly source: Address;
  readonly bytes: Uint8Array;
}

/** One transport on the network. */
export class SimTransport implements Transport, NetworkEndpoint<Sent, Uint8Array> {
  readonly local: Address;
  readonly #network: ByteNetwork;
  readonly #queue: EventQueue;
  readonly #events: TransportEvents;
  #isClosed = false;

  constructor(options: {
    readonly local: Address;
    readonly network: ByteNetwork;
    readonly queue: EventQueue;
    readonly events: TransportEvents;
  }) {
    this.local = options.local;
    this.#network = options.network;
    this.#queue = options.queue;
    this.#events = options.events;
    this.#network.attach(this);
  }

  get address(): Address {
    return this.local;
  }

  sendDatagram(target: Address, bytes: Uint8Array): void {
    if (this.#isClosed) return;
    this.#network.sendPacket(this.#link(target), { source: this.local, bytes });
  }

  sendUni(target: Address, frames: readonly Uint8Array[]): Promise<boolean> {
    if (this.#isClosed) return Promise.resolve(false);
    return new Promise((resolve) => {
      this.#network.sendFrames(this.#link(target), frames, resolve);
    });
  }

  openBi(target: Address): Promise<BiStream> {
    if (this.#isClosed) return Promise.reject(closed("shutting down"));
    return new Promise((resolve, reject) => {
      this.#network.open(this.#link(target), (end) => {
        if (end !== null) return resolve(new SimBiStream(end));
        reject(new PatinaError("TRANSPORT_CONNECT", `cannot dial ${target}`));
      });
    });
  }

  forget(target: Address): void {
    this.#network.forget(this.#link(target));
  }

  close(): Promise<void> {
    if (!this.#isClosed) this.#network.detach(this.local, true);
    this.#isClosed = true;
    return Promise.resolve();
  }

  // ---------------------------------------------------------------- the network's side

  onPacket({ source, bytes }: Sent): void {
    this.#events.datagram(bytes, source);
  }

  onFrames(frames: readonly Uint8Array[], source: Address): void {
    this.#events.uniFrames(frames, source);
  }

  onStream(end: StreamEnd<Uint8Array>): boolean {
    const stream = new SimBiStream(end);
    // Its first frame arrives with it: nobody may be told from inside the arrival.
    this.#queue.after(0, () => this.#events.biStream(stream));
    return true;
  }

  onConnection(target: Address, state: "up" | "down"): void {
    this.#events.connection(target, state, "simulated");
  }

  onRtt(target: Address, rttMs: number): void {
    this.#events.rtt(target, rttMs);
  }

  #link(target: Address): { source: Address; target: Address } {
    return { source: this.local, target };
  }
}

/** A stream end as the port has it: frames wait for a listener, and for the promise it returns. */
class SimBiStream implements BiStream {
  readonly remote: Address;
  readonly #end: StreamEnd<Uint8Array>;
  readonly #waiting: (Uint8Array | null)[] = [];
  #listener: ((frame: Uint8Array | null) => void | Promise<void>) | null = null;
  #onBroken: (error: PatinaError) => void = () => {};
  #isReading = false;
  #isOver = false;

  constructor(end: StreamEnd<Uint8Array>) {
    this.remote = end.peer;
    this.#end = end;
    end.onMessage = (frame) => this.#arrive(frame);
    end.onFinished = () => this.#arrive(null);
    end.onBroken = () => {
      if (this.#isOver) return;
      this.#isOver = true;
      this.#onBroken(closed("stream broken"));
    };
  }

  send(frame: Uint8Array): Promise<void> {
    if (this.#isOver) return Promise.reject(closed("stream aborted or broken"));
    return new Promise((resolve) => this.#end.send(frame, resolve));
  }

  finish(): void {
    this.#end.finish();
  }

  abort(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#end.abort();
  }

  onFrame(listener: (frame: Uint8Array | null) => void | Promise<void>): void {
    this.#listener = listener;
    void this.#read();
  }

  onBroken(listener: (error: PatinaError) => void): void {
    this.#onBroken = listener;
  }

  #arrive(frame: Uint8Array | null): void {
    this.#waiting.push(frame);
    void this.#read();
  }

  async #read(): Promise<void> {
    if (this.#isReading || this.#listener === null) return this.#holdIfUnread();
    this.#isReading = true;
    while (this.#waiting.length > 0) {
      const frame = this.#waiting.shift();
      const pending = frame === undefined ? undefined : this.#listener(frame);
      if (pending === undefined) continue;
      this.#end.hold(true);
      await pending;
    }
    this.#isReading = false;
    this.#end.hold(false);
  }

  #holdIfUnread(): void {
    this.#end.hold(this.#waiting.length > 0);
  }
}

function closed(reason: string): PatinaError {
  return new PatinaError("TRANSPORT_CLOSED", reason);
}
