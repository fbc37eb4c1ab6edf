/**
 * Asking whether a member lives: a direct ping, then pings through others, then the verdict. There
 * is at most one probe at a time.
 *
 * ```
 *  prober --ping--> target                       prober <--ack-- target
 *  prober --pingReq--> helper --indirectPing--> target
 *  prober <--forwardedAck-- helper <--indirectAck-- target
 * ```
 *
 * Late or misdirected acks must not count: an ack is good only from the target itself and with the
 * number of this probe, a forwarded one only through a helper that was asked.
 */
import { type Actor, isSameActor } from "./actor.ts";
import type { Member } from "./member-list.ts";
import type { SwimMessage } from "./packet.ts";

interface Probe {
  /** The target as it was when the probe began: its incarnation is what a verdict is about. */
  readonly target: Member;
  /** 0 to 255. */
  readonly number: number;
  readonly helpers: Actor[];
  isAcked: boolean;
}

/** The probe in flight, and the numbers that keep probes apart. */
export class Prober {
  #probe: Probe | null = null;
  #lastNumber = 0;

  /** Begins a probe of `target`, in place of one in flight; returns its number. */
  begin(target: Member): number {
    this.#lastNumber = (this.#lastNumber + 1) % 256;
    this.#probe = { target, number: this.#lastNumber, helpers: [], isAcked: false };
    return this.#lastNumber;
  }

  /** Ends the probe in flight, if any; returns its target where nothing was heard of it. */
  end(): Member | null {
    const probe = this.#probe;
    this.#probe = null;
    return probe === null || probe.isAcked ? null : probe.target;
  }

  /** The target that has not answered so far, with the number to ask others for. */
  get unanswered(): { readonly actor: Actor; readonly number: number } | null {
    const probe = this.#probe;
    return probe === null || probe.isAcked
      ? null
      : { actor: probe.target.actor, number: probe.number };
  }

  /** Notes that `helper` was asked to probe on our behalf. */
  noteHelper(helper: Actor): void {
    this.#probe?.helpers.push(helper);
  }

  /** Takes an ack; returns whether it is the first of the probe in flight. */
  receiveAck(source: Actor, number: number): boolean {
    const probe = this.#probe;
    if (probe === null || probe.isAcked || probe.number !== number) return false;
    probe.isAcked = isSameActor(source, probe.target.actor);
    return probe.isAcked;
  }

  /** Takes an ack of `subject` that `helper` forwards; returns as `receiveAck` does. */
  receiveForwardedAck(helper: Actor, ack: { subject: Actor; number: number }): boolean {
    const wasAsked = this.#probe?.helpers.some((asked) => isSameActor(asked, helper));
    return wasAsked === true && this.receiveAck(ack.subject, ack.number);
  }
}

/** A message that is passed on rather than kept. */
export type RelayedMessage = Extract<
  SwimMessage,
  { kind: "pingReq" | "indirectPing" | "indirectAck" }
>;

/** The next leg of an indirect probe, from us: to whom, and what. */
export function nextLeg(
  source: Actor,
  message: RelayedMessage,
): { readonly target: Actor; readonly message: SwimMessage } {
  const { subject, probe } = message;
  switch (message.kind) {
    case "pingReq":
      return { target: subject, message: { kind: "indirectPing", subject: source, probe } };
    case "indirectPing":
      return { target: source, message: { kind: "indirectAck", subject, probe } };
    case "indirectAck":
      return { target: subject, message: { kind: "forwardedAck", subject: source, probe } };
  }
}
