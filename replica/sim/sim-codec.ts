/**
 * Sends messages through their bytes, so that simulations exercise the codec. A message that does
 * not survive fails the run.
 */
import { assert } from "#base/errors.ts";
import type { SessionMessage } from "../core/sync/messages.ts";
import { decodePacket, encodePacket } from "../core/swim/codec.ts";
import type { SwimPacket } from "../core/swim/packet.ts";
import {
  decodeSyncMessage,
  decodeSyncStart,
  encodeSyncChangeset,
  encodeSyncMessage,
  encodeSyncStart,
} from "../core/wire/sync-messages.ts";
import { decodeUniFrame } from "../core/wire/uni-payload.ts";

/**
 * What a frame says. A frame that is passed on is the same array at every replica: it is decoded
 * once, not once per receiver.
 */
export class FrameDecoder {
  readonly #known = new WeakMap<Uint8Array, ReturnType<typeof decodeUniFrame>>();

  decode(frame: Uint8Array): ReturnType<typeof decodeUniFrame> {
    let decoded = this.#known.get(frame);
    if (decoded === undefined) this.#known.set(frame, (decoded = decodeUniFrame(frame)));
    return decoded;
  }
}

/** The packet as its receiver decodes it. */
export function recodePacket(packet: SwimPacket): SwimPacket {
  const decoded = decodePacket(encodePacket(packet));
  assert(decoded.ok, "a packet that we encode can be decoded");
  return decoded.value;
}

/** The message as its receiver decodes it. */
export function recodeMessage(message: SessionMessage): SessionMessage {
  if (message.kind === "start") {
    const decoded = decodeSyncStart(encodeSyncStart(message));
    assert(decoded.ok, "a start that we encode can be decoded");
    return { kind: "start", ...decoded.value };
  }
  assert(message.kind !== "unreadable", "no model writes what cannot be read");
  if (message.kind !== "changesets") return decode(encodeSyncMessage(message));
  const changesets = message.changesets.flatMap((changeset) => {
    const decoded = decode(encodeSyncChangeset(changeset));
    return decoded.kind === "changesets" ? decoded.changesets : [];
  });
  return { kind: "changesets", changesets };
}

function decode(bytes: Uint8Array): SessionMessage {
  const decoded = decodeSyncMessage(bytes);
  assert(decoded.ok, "a message that we encode can be decoded");
  assert(decoded.value.kind !== "compressedChangeset", "nothing is compressed here");
  return decoded.value;
}
