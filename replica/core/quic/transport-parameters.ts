/**
 * Transport parameters: what each side tells the other in the handshake (RFC 9000, section 18).
 *
 *     (id varint | length varint | value)*      value: one varint, bytes, or nothing
 *
 * Unknown ones are skipped, among them those that peers send only to see whether that is so.
 */
import { failure, success, type Result } from "#base/machine.ts";
import { CONNECTION_ID_BYTES_MAX } from "./packet.ts";
import { varintBytes, WireReader, WireWriter } from "./wire.ts";

/** One side's parameters. Durations are milliseconds; `UNBOUNDED` = no limit. */
export interface TransportParameters {
  /** A connection without packets for this long is dead; 0 = never. */
  readonly maxIdleTimeout: number;
  /** Largest UDP payload that is read; at least 1200. */
  readonly maxUdpPayloadSize: number;
  readonly initialMaxData: number;
  /** Credit of streams by who opened them, seen from the sender of the parameters. */
  readonly initialMaxStreamDataBidiLocal: number;
  readonly initialMaxStreamDataBidiRemote: number;
  readonly initialMaxStreamDataUni: number;
  readonly initialMaxStreamsBidi: number;
  readonly initialMaxStreamsUni: number;
  /** Delays in ACK frames are in units of 2^this microseconds. */
  readonly ackDelayExponent: number;
  readonly maxAckDelay: number;
  readonly disableActiveMigration: boolean;
  readonly activeConnectionIdLimit: number;
  /** Largest DATAGRAM frame that is taken; 0 = none (RFC 9221). */
  readonly maxDatagramFrameSize: number;
  /** The fixed bit may be anything (RFC 9287). */
  readonly greaseQuicBit: boolean;
  readonly initialSourceConnectionId: Uint8Array | null;
  /** By a server only, as are the next two. */
  readonly originalDestinationConnectionId: Uint8Array | null;
  readonly retrySourceConnectionId: Uint8Array | null;
  readonly statelessResetToken: Uint8Array | null;
}

/** What holds where a side says nothing (RFC 9000, section 18.2). */
export const DEFAULT_PARAMETERS: TransportParameters = {
  maxIdleTimeout: 0,
  maxUdpPayloadSize: 65_527,
  initialMaxData: 0,
  initialMaxStreamDataBidiLocal: 0,
  initialMaxStreamDataBidiRemote: 0,
  initialMaxStreamDataUni: 0,
  initialMaxStreamsBidi: 0,
  initialMaxStreamsUni: 0,
  ackDelayExponent: 3,
  maxAckDelay: 25,
  disableActiveMigration: false,
  activeConnectionIdLimit: 2,
  maxDatagramFrameSize: 0,
  greaseQuicBit: false,
  initialSourceConnectionId: null,
  originalDestinationConnectionId: null,
  retrySourceConnectionId: null,
  statelessResetToken: null,
};

/** Why parameters are refused. */
export type ParameterFailure = "truncated" | "duplicate" | "value" | "not-a-client's";

/** Reads the parameters of a side. The byte strings are copies. */
export function decodeParameters(
  bytes: Uint8Array,
  sender: "client" | "server",
): Result<TransportParameters, ParameterFailure> {
  const parameters: Writable<TransportParameters> = { ...DEFAULT_PARAMETERS };
  const reader = new WireReader();
  const value = new WireReader();
  reader.reset(bytes, 0, bytes.length);
  const seen = new Set<number>();
  while (reader.remaining > 0) {
    const id = reader.varint();
    const length = reader.varint();
    const start = reader.skip(length);
    if (reader.isFailed) return failure("truncated");
    const field = FIELDS.get(id);
    if (field === undefined) continue;
    if (seen.has(id)) return failure("duplicate");
    seen.add(id);
    if (sender === "client" && OF_SERVERS.has(field)) return failure("not-a-client's");
    value.reset(bytes, start, start + length);
    if (!readValue(parameters, field, value)) return failure("value");
  }
  return isSound(parameters) ? success(parameters) : failure("value");
}

/** Writes parameters, leaving out what is as it would be without a word. */
export function encodeParameters(parameters: TransportParameters): Uint8Array {
  const writer = new WireWriter();
  writer.reset(new Uint8Array(ENCODED_BYTES_MAX), 0);
  for (const [id, field] of FIELDS) {
    const value = parameters[field];
    if (value === DEFAULT_PARAMETERS[field] || value === null) continue;
    writer.varint(id);
    if (typeof value === "number") {
      writer.varint(varintBytes(value));
      writer.varint(value);
    } else if (typeof value === "boolean") {
      writer.u8(0);
    } else {
      writer.varint(value.length);
      writer.copy(value);
    }
  }
  return writer.bytes.slice(0, writer.at);
}

type Writable<Type> = { -readonly [Key in keyof Type]: Type[Key] };
type Field = keyof TransportParameters;

function readValue(
  parameters: Writable<TransportParameters>,
  field: Field,
  value: WireReader,
): boolean {
  switch (field) {
    case "disableActiveMigration":
    case "greaseQuicBit":
      parameters[field] = true;
      break;
    case "initialSourceConnectionId":
    case "originalDestinationConnectionId":
    case "retrySourceConnectionId":
    case "statelessResetToken":
      parameters[field] = value.bytes.slice(value.at, value.end);
      value.at = value.end;
      break;
    default:
      parameters[field] = value.varint();
  }
  return !value.isFailed && value.remaining === 0;
}

function isSound(parameters: TransportParameters): boolean {
  const ids = [
    parameters.initialSourceConnectionId,
    parameters.originalDestinationConnectionId,
    parameters.retrySourceConnectionId,
  ];
  const token = parameters.statelessResetToken;
  return (
    parameters.maxUdpPayloadSize >= 1_200 &&
    parameters.ackDelayExponent <= 20 &&
    parameters.maxAckDelay < 2 ** 14 &&
    parameters.activeConnectionIdLimit >= 2 &&
    Math.max(parameters.initialMaxStreamsBidi, parameters.initialMaxStreamsUni) <= 2 ** 60 &&
    ids.every((id) => id === null || id.length <= CONNECTION_ID_BYTES_MAX) &&
    (token === null || token.length === 16)
  );
}

const FIELDS: ReadonlyMap<number, Field> = new Map<number, Field>([
  [0x00, "originalDestinationConnectionId"],
  [0x01, "maxIdleTimeout"],
  [0x02, "statelessResetToken"],
  [0x03, "maxUdpPayloadSize"],
  [0x04, "initialMaxData"],
  [0x05, "initialMaxStreamDataBidiLocal"],
  [0x06, "initialMaxStreamDataBidiRemote"],
  [0x07, "initialMaxStreamDataUni"],
  [0x08, "initialMaxStreamsBidi"],
  [0x09, "initialMaxStreamsUni"],
  [0x0a, "ackDelayExponent"],
  [0x0b, "maxAckDelay"],
  [0x0c, "disableActiveMigration"],
  [0x0e, "activeConnectionIdLimit"],
  [0x0f, "initialSourceConnectionId"],
  [0x10, "retrySourceConnectionId"],
  [0x20, "maxDatagramFrameSize"],
  [0x2ab2, "greaseQuicBit"],
]);
const OF_SERVERS: ReadonlySet<Field> = new Set([
  "originalDestinationConnectionId",
  "retrySourceConnectionId",
  "statelessResetToken",
]);
/** All of them at their longest. */
const ENCODED_BYTES_MAX = 512;
