import fc from "fast-check";
import { expect, test } from "vitest";
import { hexToBytes, readVectors } from "../../../tests/wire-fixtures.ts";
import {
  decodeParameters,
  DEFAULT_PARAMETERS,
  encodeParameters,
  type TransportParameters,
} from "./transport-parameters.ts";
import { UNBOUNDED } from "./wire.ts";

const captured = readVectors<{ fromServer: boolean; transportParameters: string }[]>(
  "quic-transport-parameters.json",
);

test("the parameters that real nodes sent are those of the protocol reference, section 1.3", () => {
  expect(captured.length).toBeGreaterThan(2);
  for (const { fromServer, transportParameters } of captured) {
    const decoded = decodeParameters(
      hexToBytes(transportParameters),
      fromServer ? "server" : "client",
    );
    expect(decoded).toMatchObject({
      ok: true,
      value: {
        maxIdleTimeout: 30_000,
        maxUdpPayloadSize: 1_472,
        initialMaxData: UNBOUNDED,
        initialMaxStreamDataBidiLocal: 1_250_000,
        initialMaxStreamDataBidiRemote: 1_250_000,
        initialMaxStreamDataUni: 1_250_000,
        initialMaxStreamsBidi: 32,
        initialMaxStreamsUni: 256,
        activeConnectionIdLimit: 5,
        maxDatagramFrameSize: 65_535,
        greaseQuicBit: true,
      },
    });
    if (!decoded.ok) continue;
    expect(decoded.value.initialSourceConnectionId).toHaveLength(8);
    expect(decoded.value.originalDestinationConnectionId === null).toBe(!fromServer);
  }
});

test("parameters come back as they were written", () => {
  const id = fc.option(fc.uint8Array({ maxLength: 20 }));
  const integer = fc.maxSafeNat();
  const streams = fc.nat();
  const parameters: fc.Arbitrary<TransportParameters> = fc.record({
    maxIdleTimeout: integer,
    maxUdpPayloadSize: fc.integer({ min: 1_200 }),
    initialMaxData: fc.oneof(integer, fc.constant(UNBOUNDED)),
    initialMaxStreamDataBidiLocal: integer,
    initialMaxStreamDataBidiRemote: integer,
    initialMaxStreamDataUni: integer,
    initialMaxStreamsBidi: streams,
    initialMaxStreamsUni: streams,
    ackDelayExponent: fc.nat({ max: 20 }),
    maxAckDelay: fc.nat({ max: 16_383 }),
    disableActiveMigration: fc.boolean(),
    activeConnectionIdLimit: fc.integer({ min: 2 }),
    maxDatagramFrameSize: integer,
    greaseQuicBit: fc.boolean(),
    initialSourceConnectionId: id,
    originalDestinationConnectionId: id,
    retrySourceConnectionId: id,
    statelessResetToken: fc.option(fc.uint8Array({ minLength: 16, maxLength: 16 })),
  });
  fc.assert(
    fc.property(parameters, (given) => {
      const decoded = decodeParameters(encodeParameters(given), "server");
      expect(decoded).toEqual({ ok: true, value: given });
    }),
  );
});

test("a side that says nothing has the defaults of the RFC", () => {
  expect(decodeParameters(new Uint8Array(0), "client")).toEqual({
    ok: true,
    value: DEFAULT_PARAMETERS,
  });
});

test.each([
  ["cut short", "0104 8000", "truncated"],
  ["one twice", "0101 05 0101 05", "duplicate"],
  ["a value that does not fill its length", "0102 0500", "value"],
  ["a value longer than its length", "0101 80", "value"],
  ["a packet size below the least", "0302 44af", "value"],
  ["an exponent above 20", "0a01 15", "value"],
  ["an acknowledgement delay of 2^14", "0b04 80004000", "value"],
  ["a limit of one connection id", "0e01 01", "value"],
  ["a reset token of 15 bytes", `020f ${"00".repeat(15)}`, "value"],
  ["a connection id of 21 bytes", `0f15 ${"00".repeat(21)}`, "value"],
  ["a flag with a value", "0c01 00", "value"],
])("%s is refused", (_, hex, error) => {
  expect(decodeParameters(hexToBytes(hex), "server")).toEqual({ ok: false, error });
});

test("what only a server may say is refused from a client", () => {
  const hex = `0210 ${"00".repeat(16)}`;
  expect(decodeParameters(hexToBytes(hex), "server").ok).toBe(true);
  expect(decodeParameters(hexToBytes(hex), "client")).toEqual({
    ok: false,
    error: "not-a-client's",
  });
});

test("no bytes make the decoder throw, nor does any damage to captured ones", () => {
  const base = hexToBytes(captured[1]!.transportParameters);
  const damaged = fc
    .array(fc.tuple(fc.nat({ max: base.length - 1 }), fc.nat({ max: 255 })), { maxLength: 4 })
    .map((changes) => {
      const bytes = base.slice();
      for (const [at, byte] of changes) bytes[at] = byte;
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 60 }), damaged), (bytes) => {
      const decoded = decodeParameters(bytes, "server");
      if (decoded.ok) expect(decoded.value.maxUdpPayloadSize).toBeGreaterThanOrEqual(1_200);
    }),
  );
});
