import { readFileSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Actor, placeholderActor } from "./actor.ts";
import { formatAddress } from "./address.ts";
import { decodePacket, encodePacket, memberBytes, packetBytes } from "./codec.ts";
import type { MemberState, MemberUpdate, SwimMessage, SwimPacket } from "./packet.ts";

const A: Actor = {
  id: "00112233-4455-6677-8899-aabbccddeeff",
  addr: "10.0.0.1:4001",
  ts: 0x684e_e180_0000_0000n,
  clusterId: 0,
  memberId: null,
};
const B: Actor = {
  id: "ffeeddcc-bbaa-9988-7766-554433221100",
  addr: "10.0.0.2:4001",
  ts: 0x684e_e180_0000_0010n,
  clusterId: 0,
  memberId: 7,
};
const A_HEX = "1000112233445566778899aabbccddeeff000a000001fba10ffd0000000080e14e680000";
const B_HEX = "10ffeeddccbbaa99887766554433221100000a000002fba10ffd1000000080e14e68000107";

test.each(capturedPackets())(
  "a captured packet decodes and encodes to its bytes ($name)",
  (case_) => {
    const decoded = decodePacket(Uint8Array.fromHex(case_.hex));
    expect(decoded).toEqual({ ok: true, value: case_.packet });
    expect(encodePacket(case_.packet).toHex()).toBe(case_.hex);
    expect(packetBytes(case_.packet)).toBe(case_.hex.length / 2);
  },
);

test.each<{ name: string; packet: SwimPacket; hex: string }>([
  {
    name: "an announcement to a bootstrap address",
    packet: {
      source: A,
      sourceIncarnation: 0,
      target: placeholderActor("10.0.0.2:4001"),
      message: { kind: "announce" },
      members: null,
    },
    hex: `${A_HEX}001000000000000000000000000000000000000a000002fba10f00000006`,
  },
  {
    name: "a ping with nothing piggy-backed",
    packet: {
      source: A,
      sourceIncarnation: 0,
      target: B,
      message: { kind: "ping", probe: 5 },
      members: [],
    },
    hex: `${A_HEX}00${B_HEX}00050000`,
  },
  {
    name: "a feed of one member",
    packet: {
      source: B,
      sourceIncarnation: 0,
      target: A,
      message: { kind: "feed" },
      members: [
        {
          actor: { ...A, id: "01020304-0506-0708-090a-0b0c0d0e0f10", addr: "10.0.0.3:4001" },
          incarnation: 2,
          state: "alive",
        },
      ],
    },
    hex:
      `${B_HEX}00${A_HEX}070001` +
      "100102030405060708090a0b0c0d0e0f10000a000003fba10ffd0000000080e14e6800000200",
  },
  {
    name: "an IPv6 actor of cluster 300",
    packet: {
      source: { ...A, addr: "[fdaa::1]:8787", clusterId: 300 },
      sourceIncarnation: 0,
      target: A,
      message: { kind: "turnUndead" },
      members: null,
    },
    hex:
      "1000112233445566778899aabbccddeeff01fdaa0000000000000000000000000001fb5322" +
      `fd0000000080e14e68fb2c010000${A_HEX}0a`,
  },
])("$name is these bytes", ({ packet, hex }) => {
  expect(encodePacket(packet).toHex()).toBe(hex);
  expect(decodePacket(Uint8Array.fromHex(hex))).toEqual({ ok: true, value: packet });
  expect(packetBytes(packet)).toBe(hex.length / 2);
});

test.each([
  ["nothing", ""],
  ["half an actor", A_HEX.slice(0, 40)],
  ["an id of 15 bytes", `0f${A_HEX.slice(2)}00${B_HEX}00050000`],
  ["an address of a third family", `${A_HEX.slice(0, 34)}02${A_HEX.slice(36)}00${B_HEX}00050000`],
  ["an unknown message", `${A_HEX}00${B_HEX}0b`],
  ["an announcement with a count", `${A_HEX}00${B_HEX}060000`],
  ["one byte after the message", `${A_HEX}00${B_HEX}000500`],
  ["more members promised than sent", `${A_HEX}00${B_HEX}000500ff${A_HEX}0000`],
  ["an unknown member state", `${A_HEX}00${B_HEX}00050001${A_HEX}0003`],
  ["a custom broadcast after the members", `${A_HEX}00${B_HEX}0005000001`],
  ["an incarnation wider than 16 bits", `${A_HEX}fc00000100${B_HEX}00050000`],
  ["a member id option that is neither", `${A_HEX.slice(0, -2)}0200${B_HEX}00050000`],
])("%s is malformed", (_name, hex) => {
  expect(decodePacket(Uint8Array.fromHex(hex))).toMatchObject({
    ok: false,
    error: { kind: "malformedPacket" },
  });
});

test("in a packet an actor id has its length before it, and only the member count is big-endian", () => {
  const member: MemberUpdate = { actor: B, incarnation: 300, state: "alive" };
  const packet: SwimPacket = {
    source: A,
    sourceIncarnation: 300,
    target: B,
    message: { kind: "ping", probe: 5 },
    members: [member, member, member],
  };
  const hex = encodePacket(packet).toHex();
  const head = `${A_HEX}fb2c01${B_HEX}0005`;
  expect(hex.slice(0, 2)).toBe("10");
  expect(hex.slice(0, head.length)).toBe(head);
  expect(hex.slice(head.length, head.length + 4)).toBe("0003");
  expect(decodePacket(Uint8Array.fromHex(hex))).toEqual({ ok: true, value: packet });
});

test("a packet that ends after its message carries no members", () => {
  const decoded = decodePacket(Uint8Array.fromHex(`${A_HEX}00${B_HEX}0005`));
  expect(decoded).toMatchObject({ ok: true, value: { members: null } });
});

test("any packet survives encoding and decoding, and its size is known beforehand", () => {
  fc.assert(
    fc.property(packets(), (packet) => {
      const bytes = encodePacket(packet);
      expect(packetBytes(packet)).toBe(bytes.length);
      expect(decodePacket(bytes)).toEqual({ ok: true, value: packet });
    }),
  );
});

test("the size of a member is what it adds to a packet", () => {
  fc.assert(
    fc.property(packets(), members(), (packet, member) => {
      const before = packetBytes({ ...packet, members: [] });
      expect(packetBytes({ ...packet, members: [member] })).toBe(before + memberBytes(member));
    }),
  );
});

test("no bytes make the decoder throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1_200 }), (bytes) => {
      decodePacket(bytes);
    }),
    { numRuns: 2_000 },
  );
});

test("no damage to a valid packet makes the decoder throw, and what decodes can be encoded", () => {
  const damage = fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(packets(), damage, fc.nat(400), (packet, changes, cut) => {
      const bytes = encodePacket(packet);
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      const decoded = decodePacket(cut < bytes.length ? bytes.subarray(0, cut) : bytes);
      if (decoded.ok) expect(decodePacket(encodePacket(decoded.value))).toEqual(decoded);
    }),
    { numRuns: 2_000 },
  );
});

interface CapturedActor {
  id: string;
  addr: string;
  ts: string;
  clusterId: number;
  memberId: number | null;
}

interface Captured {
  hex: string;
  decoded: {
    source: CapturedActor;
    sourceIncarnation: number;
    target: CapturedActor;
    message: string;
    probe?: number;
    about?: CapturedActor;
    members?: { actor: CapturedActor; incarnation: number; state: string }[];
  };
}

function capturedPackets(): { name: string; hex: string; packet: SwimPacket }[] {
  const url = new URL("../../../tests/vectors/swim.json", import.meta.url);
  const captured = JSON.parse(readFileSync(url, "utf8")) as Captured[];
  return captured.map(({ hex, decoded }, index) => ({
    name: `${index} ${decoded.message}`,
    hex,
    packet: {
      source: capturedActor(decoded.source),
      sourceIncarnation: decoded.sourceIncarnation,
      target: capturedActor(decoded.target),
      message: capturedMessage(decoded),
      members:
        decoded.members?.map((member) => ({
          actor: capturedActor(member.actor),
          incarnation: member.incarnation,
          state: member.state.toLowerCase() as MemberState,
        })) ?? null,
    },
  }));
}

function capturedActor(actor: CapturedActor): Actor {
  return { ...actor, ts: BigInt(actor.ts) };
}

function capturedMessage(decoded: Captured["decoded"]): SwimMessage {
  const kind = decoded.message.charAt(0).toLowerCase() + decoded.message.slice(1);
  return {
    kind,
    ...(decoded.about === undefined ? {} : { subject: capturedActor(decoded.about) }),
    ...(decoded.probe === undefined ? {} : { probe: decoded.probe }),
  } as SwimMessage;
}

function actors(): fc.Arbitrary<Actor> {
  const octets = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
    fc.array(fc.constantFrom(0, 0, 1, 255), { minLength: 16, maxLength: 16 }),
  );
  return fc.record({
    id: fc.uuid(),
    addr: fc
      .tuple(octets, fc.nat(65_535))
      .map(([bytes, port]) => formatAddress({ octets: Uint8Array.from(bytes), port })),
    ts: fc.oneof(fc.bigInt({ min: 0n, max: 70_000n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
    clusterId: fc.nat(65_535),
    memberId: fc.option(fc.nat(65_535)),
  });
}

function members(): fc.Arbitrary<MemberUpdate> {
  return fc.record({
    actor: actors(),
    incarnation: fc.nat(65_535),
    state: fc.constantFrom<MemberState>("alive", "suspect", "down"),
  });
}

function packets(): fc.Arbitrary<SwimPacket> {
  const probe = fc.nat(255);
  const message = fc.oneof(
    fc.record({ kind: fc.constantFrom("ping", "ack"), probe }),
    fc.record({
      kind: fc.constantFrom("pingReq", "indirectPing", "indirectAck", "forwardedAck"),
      subject: actors(),
      probe,
    }),
    fc.record({ kind: fc.constantFrom("announce", "feed", "gossip", "broadcast", "turnUndead") }),
  ) as fc.Arbitrary<SwimMessage>;
  return fc
    .record({
      source: actors(),
      sourceIncarnation: fc.nat(65_535),
      target: actors(),
      message,
      members: fc.option(fc.array(members(), { maxLength: 5 })),
    })
    .map((packet) => (packet.message.kind === "announce" ? { ...packet, members: null } : packet));
}
