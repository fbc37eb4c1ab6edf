/**
 * A two-way stream between simulated replicas, with QUIC's promises: messages arrive in order and
 * whole, or the stream breaks; a reader that holds back makes the writer wait.
 */
import type { Address } from "../types.ts";

/** One side of a two-way stream. Listeners are set by whoever holds it. */
export interface StreamEnd<Message> {
  readonly peer: Address;
  onMessage: (message: Message) => void;
  onFinished: () => void;
  onBroken: () => void;
  /** `onRoom` hears when there is room for more: at once, or when the reader has caught up. */
  send(message: Message, onRoom?: () => void): void;
  finish(): void;
  /** Gives up both directions; the own `onBroken` does not hear of it. */
  abort(): void;
  /** Holds back, or lets go on, what the peer sends. */
  hold(isHeld: boolean): void;
}

/** What a stream needs from the network. */
export interface PipeNetwork {
  /** Plans an arrival, not before a time, later if it is repeated. Returns the time. */
  carry(of: { notBeforeMs: number; isRepeated: boolean }, arrive: () => void): number;
  /** Plans something soon. */
  soon(run: () => void): void;
  /** Where a packet that arrives now gets to. */
  fate(): "arrives" | "repeated" | "lost";
  /** Draws whether this message breaks the stream. */
  isBreaking(): boolean;
  /** The peer sees the stream for the first time; false = it refuses. */
  accept(): boolean;
  /** Both sides have finished, or the stream broke. */
  ended(): void;
}

/** A two-way stream. */
export class Pipe<Message> {
  readonly opened: StreamEnd<Message>;
  readonly accepted: StreamEnd<Message>;
  isBroken = false;
  readonly #network: PipeNetwork;
  #isAccepted = false;
  #finished = 0;

  constructor(of: { source: Address; target: Address; network: PipeNetwork }) {
    this.#network = of.network;
    this.opened = createEnd(of.target);
    this.accepted = createEnd(of.source);
    const there = new Direction<Message>(this.#network, (item) =>
      this.#arrive(this.accepted, item),
    );
    const back = new Direction<Message>(this.#network, (item) => this.#arrive(this.opened, item));
    this.#join(this.opened, there, back);
    this.#join(this.accepted, back, there);
  }

  /** Breaks the stream; each side hears of it after its delay, or never. */
  break(sides: { readonly opened: boolean; readonly accepted: boolean }): void {
    if (this.isBroken) return;
    this.isBroken = true;
    this.#network.ended();
    if (sides.opened) this.#network.soon(() => this.opened.onBroken());
    if (sides.accepted && this.#isAccepted) this.#network.soon(() => this.accepted.onBroken());
  }

  #join(end: StreamEnd<Message>, out: Direction<Message>, into: Direction<Message>): void {
    end.send = (message, onRoom) => {
      if (this.isBroken) return;
      if (this.#network.isBreaking()) return this.break({ opened: true, accepted: true });
      out.send({ kind: "message", message }, () => this.isBroken);
      if (onRoom !== undefined) out.whenRoom(onRoom);
    };
    end.finish = () => {
      if (!this.isBroken) out.send({ kind: "finish" }, () => this.isBroken);
    };
    end.abort = () => {
      if (!this.isBroken) out.send({ kind: "abort" }, () => this.isBroken);
    };
    end.hold = (isHeld) => into.hold(isHeld);
  }

  #arrive(end: StreamEnd<Message>, item: Item<Message>): void {
    if (end === this.accepted && !this.#isAccepted) {
      this.#isAccepted = true;
      if (!this.#network.accept()) return this.break({ opened: true, accepted: false });
    }
    switch (item.kind) {
      case "message":
        return end.onMessage(item.message);
      case "finish":
        this.#finished += 1;
        end.onFinished();
        if (this.#finished >= 2) this.#network.ended();
        return;
      case "abort":
        this.isBroken = true;
        this.#network.ended();
        return end.onBroken();
    }
  }
}

type Item<Message> =
  | { readonly kind: "message"; readonly message: Message }
  | { readonly kind: "finish" }
  | { readonly kind: "abort" };

/** One way of a stream. */
class Direction<Message> {
  readonly #network: PipeNetwork;
  readonly #deliver: (item: Item<Message>) => void;
  /** Sent and not arrived, in order. */
  readonly #travelling: Item<Message>[] = [];
  /** Arrived and not read. */
  readonly #unread: Item<Message>[] = [];
  readonly #blocked: (() => void)[] = [];
  #lastArrivalMs = 0;
  #isHeld = false;

  constructor(network: PipeNetwork, deliver: (item: Item<Message>) => void) {
    this.#network = network;
    this.#deliver = deliver;
  }

  send(item: Item<Message>, isBroken: () => boolean): void {
    this.#travelling.push(item);
    this.#carry(isBroken, false);
  }

  whenRoom(onRoom: () => void): void {
    if (this.#hasRoom) this.#network.soon(onRoom);
    else this.#blocked.push(onRoom);
  }

  hold(isHeld: boolean): void {
    this.#isHeld = isHeld;
    if (!isHeld) this.#network.soon(() => this.#read());
  }

  get #hasRoom(): boolean {
    return this.#travelling.length + this.#unread.length <= WINDOW_MESSAGES;
  }

  /** One arrival for each item; whichever comes first takes the first item, so order is kept. */
  #carry(isBroken: () => boolean, isRepeated: boolean): void {
    const of = { notBeforeMs: this.#lastArrivalMs, isRepeated };
    this.#lastArrivalMs = this.#network.carry(of, () => {
      if (isBroken()) return;
      const fate = this.#network.fate();
      if (fate === "repeated") return this.#carry(isBroken, true);
      const item = this.#travelling.shift();
      if (fate === "lost" || item === undefined) return;
      if (item.kind === "abort") return this.#deliver(item);
      this.#unread.push(item);
      this.#read();
    });
  }

  #read(): void {
    while (!this.#isHeld && this.#unread.length > 0) {
      const item = this.#unread.shift();
      if (item !== undefined) this.#deliver(item);
    }
    while (this.#hasRoom && this.#blocked.length > 0) {
      const onRoom = this.#blocked.shift();
      if (onRoom !== undefined) this.#network.soon(onRoom);
    }
  }
}

function createEnd<Message>(peer: Address): StreamEnd<Message> {
  const nothing = (): void => {};
  return {
    peer,
    onMessage: nothing,
    onFinished: nothing,
    onBroken: nothing,
    send: nothing,
    finish: nothing,
    abort: nothing,
    hold: nothing,
  };
}

/** Messages on their way or unread in one direction; a stand-in for QUIC's byte window. */
const WINDOW_MESSAGES = 16;
