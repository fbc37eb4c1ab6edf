/**
 * Connection ids: those that we gave the peer to address us by, and those that it gave us (RFC 9000,
 * section 5.1).
 *
 * The peer is offered a spare one, and a new one for each that it retires. Of the peer's ids the
 * lowest is used until the peer wants it retired; migration, for which the others are, is not ours.
 */
import { RESET_TOKEN_BYTES, type OfferedId } from "./frames.ts";
import { CONNECTION_ID_LIMIT_ERROR, NO_ERROR, PROTOCOL_VIOLATION } from "./transport-error.ts";

/** An id and the token by which the peer knows a stateless reset of it. */
export interface IssuedId {
  readonly id: Uint8Array;
  readonly resetToken: Uint8Array;
}

/** Where ids of ours come from: unpredictable ones, by which packets find this connection. */
export interface IdSource {
  issue(): IssuedId;
  /** Packets to this id are for this connection no more. */
  retire(id: Uint8Array): void;
}

/** The ids that the peer addresses us by. */
export class LocalIds {
  /** Ids that the peer must be told of. */
  readonly pending: OfferedId[] = [];
  readonly #source: IdSource;
  #active: OfferedId[] = [];
  #next = 0;
  /** The largest sequence number that the peer may know. */
  #told = 0;

  constructor(source: IdSource) {
    this.#source = source;
    this.#issue();
  }

  /** The first one, which the handshake tells. */
  get first(): OfferedId {
    const [first] = this.#active;
    if (first === undefined) throw new Error("asked for after the handshake");
    return first;
  }

  /** Whether the id at `at` is one of ours. */
  has(bytes: Uint8Array, at: number, length: number): boolean {
    for (const { id } of this.#active) if (isAt(bytes, at, length, id)) return true;
    return false;
  }

  /** Offers spare ids, as many as the peer keeps. */
  offer(peerLimit: number): void {
    const wanted = Math.min(peerLimit, LOCAL_IDS_MAX);
    while (this.#active.length < wanted) this.pending.push(this.#issue());
  }

  /** The next offer to send. */
  takeOffer(): OfferedId | undefined {
    const offer = this.pending.shift();
    if (offer !== undefined) this.#told = Math.max(this.#told, offer.sequence);
    return offer;
  }

  /** The offer was lost on its way. */
  offerLost(sequence: number): void {
    const offer = this.#active.find((active) => active.sequence === sequence);
    if (offer !== undefined && !this.pending.includes(offer)) this.pending.push(offer);
  }

  /** Takes RETIRE_CONNECTION_ID. Returns a transport error, or `NO_ERROR`. */
  onRetire(sequence: number): number {
    // Guessed: each would make us offer another, without a word of ours in between.
    if (sequence > this.#told) return PROTOCOL_VIOLATION;
    const at = this.#active.findIndex((active) => active.sequence === sequence);
    const retired = this.#active[at];
    if (retired === undefined) return NO_ERROR;
    this.#active.splice(at, 1);
    const again = this.pending.indexOf(retired);
    if (again >= 0) this.pending.splice(again, 1);
    this.#source.retire(retired.id);
    this.pending.push(this.#issue());
    return NO_ERROR;
  }

  /** The connection is over. */
  retireAll(): void {
    for (const { id } of this.#active.splice(0)) this.#source.retire(id);
    this.pending.length = 0;
  }

  #issue(): OfferedId {
    const offer = { sequence: this.#next, retirePriorTo: 0, ...this.#source.issue() };
    this.#next += 1;
    this.#active.push(offer);
    return offer;
  }
}

interface PeerId {
  readonly sequence: number;
  readonly id: Uint8Array;
  readonly resetToken: Uint8Array | null;
}

/** The ids by which we address the peer. */
export class PeerIds {
  /** Sequence numbers of ids that the peer must be told are retired. */
  readonly pendingRetired: number[] = [];
  readonly #limit: number;
  #known: PeerId[];
  #retirePriorTo = 0;

  /** `limit`: how many we said to keep. */
  constructor(first: Uint8Array, limit: number) {
    this.#known = [{ sequence: 0, id: first, resetToken: null }];
    this.#limit = limit;
  }

  /** The id to use. */
  get current(): Uint8Array {
    return this.#known[0]?.id ?? NO_ID;
  }

  /** The server chose an id in place of the one that we made up; or told its reset token. */
  replaceFirst(id: Uint8Array, resetToken: Uint8Array | null): void {
    this.#known[0] = { sequence: 0, id, resetToken };
  }

  /** Takes NEW_CONNECTION_ID. Returns a transport error, or `NO_ERROR`. */
  onNew(offer: OfferedId): number {
    if (this.current.length === 0) return PROTOCOL_VIOLATION;
    const known = this.#known.find(({ sequence }) => sequence === offer.sequence);
    if (known !== undefined) {
      return isAt(offer.id, 0, offer.id.length, known.id) ? NO_ERROR : PROTOCOL_VIOLATION;
    }
    if (offer.sequence < this.#retirePriorTo) this.#retire(offer.sequence);
    else this.#known.push({ ...offer });
    if (offer.retirePriorTo > this.#retirePriorTo) {
      this.#retirePriorTo = offer.retirePriorTo;
      for (const { sequence } of this.#known) {
        if (sequence < offer.retirePriorTo) this.#retire(sequence);
      }
      this.#known = this.#known.filter(({ sequence }) => sequence >= offer.retirePriorTo);
    }
    const isTooMany = this.#known.length > this.#limit;
    const isFlood = this.pendingRetired.length > this.#limit * RETIRED_PER_ID_MAX;
    return isTooMany || isFlood ? CONNECTION_ID_LIMIT_ERROR : NO_ERROR;
  }

  /** Whether a datagram ends as the peer's stateless reset would (section 10.3). */
  isReset(datagram: Uint8Array): boolean {
    const at = datagram.length - RESET_TOKEN_BYTES;
    if (at < RESET_BYTES_MIN - RESET_TOKEN_BYTES) return false;
    return this.#known.some(
      ({ resetToken }) => resetToken !== null && isAt(datagram, at, RESET_TOKEN_BYTES, resetToken),
    );
  }

  #retire(sequence: number): void {
    if (!this.pendingRetired.includes(sequence)) this.pendingRetired.push(sequence);
  }
}

function isAt(bytes: Uint8Array, at: number, length: number, id: Uint8Array): boolean {
  if (length !== id.length) return false;
  for (let index = 0; index < length; index += 1) {
    if (bytes[at + index] !== id[index]) return false;
  }
  return true;
}

const NO_ID = new Uint8Array(0);
/** The one in use and a spare one. */
const LOCAL_IDS_MAX = 2;
/** Arbitrary; a peer that replaces its ids faster than it hears of it is told to stop. */
const RETIRED_PER_ID_MAX = 4;
/** RFC 9000, section 10.3: smaller packets are no reset. */
const RESET_BYTES_MIN = 21;
