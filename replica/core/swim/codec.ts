/**
 * SWIM packets to bytes and back, as foca writes them with bincode 2 (protocol reference, sections
 * 2.1 to 2.3).
 *
 * | part | layout |
 * |---|---|
 * | packet | source actor, source incarnation vint, target actor, message, members? |
 * | actor | `10` id(16) ‖ address ‖ ts vint ‖ cluster id vint ‖ (`00` or `01` member id vint) |
 * | address | (`00` octets(4) or `01` octets(16)) ‖ port vint |
 * | message | variant vint ‖ [subject actor] ‖ [probe u8] |
 * | members | count u16be ‖ count x (actor ‖ incarnation vint ‖ state) |
 * | state | `00` alive, `01` suspect, `02` down |
 *
 * A packet may end after its message; one stray byte there is malformed, and so is anything after
 * an `announce` or after the counted members (custom broadcasts, which nobody uses).
 */
import { assert } from "#base/errors.ts";
import { failure, type Result, success } from "#base/machine.ts";
import type { ActorId } from "../../types.ts";
import type { Actor } from "./actor.ts";
import { formatAddress, parseAddress } from "./address.ts";
import { BincodeReader, BincodeWriter, vintBytes } from "./bincode.ts";
import type { MemberState, MemberUpdate, SwimMessage, SwimPacket } from "./packet.ts";

/** Why bytes are no SWIM packet. */
export interface SwimDecodeError {
  readonly kind: "malformedPacket";
  /** For people; holds positions and numbers only, nothing the sender chose. */
  readonly reason: string;
}

/** Decodes one packet. Total: no bytes make it throw. O(bytes). */
export function decodePacket(bytes: Uint8Array): Result<SwimPacket, SwimDecodeError> {
  const reader = new BincodeReader(bytes);
  const source = readActor(reader);
  const sourceIncarnation = reader.vint16();
  const target = readActor(reader);
  const message = readMessage(reader);
  const members = readMembers(reader, message);
  if (reader.fault === null && reader.remaining > 0) reader.fail("bytes after the packet");
  if (reader.fault !== null) return failure({ kind: "malformedPacket", reason: reader.fault });
  return success({ source, sourceIncarnation, target, message, members });
}

/** Encodes one packet. Its actors must hold canonical addresses and ids. */
export function encodePacket(packet: SwimPacket): Uint8Array {
  const writer = new BincodeWriter();
  writeActor(writer, packet.source);
  writer.vint16(packet.sourceIncarnation);
  writeActor(writer, packet.target);
  writeMessage(writer, packet.message);
  if (packet.members !== null) {
    writer.u16be(packet.members.length);
    for (const member of packet.members) {
      writeActor(writer, member.actor);
      writer.vint16(member.incarnation);
      writer.u8(STATES.indexOf(member.state));
    }
  }
  return writer.finish();
}

/** The encoded size of a packet in bytes, without encoding it. */
export function packetBytes(packet: SwimPacket): number {
  const { source, sourceIncarnation, target, message } = packet;
  let bytes = actorBytes(source) + vintBytes(sourceIncarnation) + actorBytes(target) + 1;
  if ("subject" in message) bytes += actorBytes(message.subject);
  if ("probe" in message) bytes += 1;
  if (packet.members === null) return bytes;
  return packet.members.reduce((sum, member) => sum + memberBytes(member), bytes + 2);
}

/** The encoded size of one member in bytes. */
export function memberBytes(member: MemberUpdate): number {
  return actorBytes(member.actor) + vintBytes(member.incarnation) + 1;
}

function actorBytes(actor: Actor): number {
  const { addr } = actor;
  const octets = addr.startsWith("[") ? 16 : 4;
  const port = Number(addr.slice(addr.lastIndexOf(":") + 1));
  const memberId = actor.memberId === null ? 0 : vintBytes(actor.memberId);
  const fixed = 17 + 1 + octets + 1;
  return fixed + vintBytes(port) + vintBytes(actor.ts) + vintBytes(actor.clusterId) + memberId;
}

function readActor(reader: BincodeReader): Actor {
  if (reader.vint64() !== 16n) reader.fail("an id that is not 16 bytes");
  const id = formatActorId(reader.bytes(16));
  const family = reader.vint16();
  if (family > 1) reader.fail("unknown address family");
  const octets = reader.bytes(family === 0 ? 4 : 16);
  const port = reader.vint16();
  // After a fault the octets are empty, and the address is never looked at.
  const addr = octets.length === 0 ? "" : formatAddress({ octets, port });
  const ts = reader.vint64();
  const clusterId = reader.vint16();
  const hasMemberId = reader.u8();
  if (hasMemberId > 1) reader.fail("an option that is neither none nor some");
  const memberId = hasMemberId === 1 ? reader.vint16() : null;
  return { id, addr, ts, clusterId, memberId };
}

function readMessage(reader: BincodeReader): SwimMessage {
  const kind = MESSAGES[reader.vint16()];
  if (kind === undefined) {
    reader.fail("unknown message");
    return { kind: "gossip" };
  }
  switch (kind) {
    case "ping":
    case "ack":
      return { kind, probe: reader.u8() };
    case "pingReq":
    case "indirectPing":
    case "indirectAck":
    case "forwardedAck": {
      const subject = readActor(reader);
      return { kind, subject, probe: reader.u8() };
    }
    case "announce":
    case "feed":
    case "gossip":
    case "broadcast":
    case "turnUndead":
      return { kind };
  }
}

function readMembers(reader: BincodeReader, message: SwimMessage): MemberUpdate[] | null {
  if (reader.remaining === 0) return null;
  if (message.kind === "announce") reader.fail("an announcement with more to it");
  const members: MemberUpdate[] = [];
  const count = reader.u16be();
  for (let index = 0; index < count && reader.fault === null; index += 1) {
    const actor = readActor(reader);
    const incarnation = reader.vint16();
    const state = STATES[reader.vint16()];
    if (state === undefined) reader.fail("unknown member state");
    else members.push({ actor, incarnation, state });
  }
  return members;
}

function writeActor(writer: BincodeWriter, actor: Actor): void {
  const address = parseAddress(actor.addr);
  assert(address.ok, "an actor's address is canonical text");
  const { octets, port } = address.value;
  writer.u8(16);
  writer.bytes(parseActorId(actor.id));
  writer.u8(octets.length === 4 ? 0 : 1);
  writer.bytes(octets);
  writer.vint16(port);
  writer.vint64(actor.ts);
  writer.vint16(actor.clusterId);
  writer.u8(actor.memberId === null ? 0 : 1);
  if (actor.memberId !== null) writer.vint16(actor.memberId);
}

function writeMessage(writer: BincodeWriter, message: SwimMessage): void {
  writer.vint16(MESSAGES.indexOf(message.kind));
  if ("subject" in message) writeActor(writer, message.subject);
  if ("probe" in message) writer.u8(message.probe);
}

function formatActorId(bytes: Uint8Array): ActorId {
  const hex = bytes.toHex();
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)];
  return `${parts.join("-")}-${hex.slice(20)}`;
}

function parseActorId(id: ActorId): Uint8Array {
  const hex = id.replaceAll("-", "");
  assert(hex.length === 32, "an actor id is a UUID");
  return Uint8Array.fromHex(hex);
}

/** Message kinds in the order of their numbers on the wire. */
const MESSAGES: readonly SwimMessage["kind"][] = [
  "ping",
  "ack",
  "pingReq",
  "indirectPing",
  "indirectAck",
  "forwardedAck",
  "announce",
  "feed",
  "gossip",
  "broadcast",
  "turnUndead",
];

/** Member states in the order of their numbers on the wire. */
const STATES: readonly MemberState[] = ["alive", "suspect", "down"];
