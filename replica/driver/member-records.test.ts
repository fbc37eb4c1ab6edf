import fc from "fast-check";
import { expect, test } from "vitest";
import { RingTable } from "../core/ring-table.ts";
import type { MemberUpdate } from "../core/swim/packet.ts";
import { fromRecords, toRecord } from "./member-records.ts";

const MEMBER: MemberUpdate = {
  actor: {
    id: "11111111-1111-4111-8111-111111111111",
    addr: "[2001:db8::1]:8787",
    ts: 18_446_744_073_709_551_615n,
    clusterId: 7,
    memberId: null,
  },
  incarnation: 65_535,
  state: "suspect",
};

test.each(["alive", "suspect", "down"] as const)(
  "a member that is %s is read as saved",
  (state) => {
    const member = { ...MEMBER, state };
    const named = { ...member, actor: { ...member.actor, memberId: 3 } };
    const records = [member, named].map((one) => toRecord(one, new RingTable(), 1_000));
    expect(fromRecords(records)).toEqual({ members: [member, named], bad: 0 });
  },
);

test("the round trip is saved with its member, and the time in whole milliseconds", () => {
  const rings = new RingTable();
  expect(toRecord(MEMBER, rings, 1)).toMatchObject({ rttMinMs: null });
  rings.sample(MEMBER.actor.addr, 12);
  const record = toRecord(MEMBER, rings, 1_795_438_617_315.7288);
  expect(record).toMatchObject({ rttMinMs: 12, updatedAtMs: 1_795_438_617_316 });
});

test("rows that make no sense are left out and counted, and the others are kept", () => {
  const good = toRecord(MEMBER, new RingTable(), 1);
  const saved = JSON.parse(good.state) as Record<string, unknown>;
  const states = [
    "",
    "null",
    "7",
    "[]",
    "{}",
    ...[
      { ts: 1 },
      { ts: "-1" },
      { incarnation: 65_536 },
      { clusterId: "0" },
      { memberId: 0.5 },
    ].map((wrong) => JSON.stringify({ ...saved, ...wrong })),
    JSON.stringify({ ...saved, state: "left" }),
  ];
  const records = [...states.map((state) => ({ ...good, state })), good];
  const nil = { ...good, actorId: "00000000-0000-0000-0000-000000000000" };
  expect(fromRecords([...records, nil])).toEqual({ members: [MEMBER], bad: states.length + 1 });
});

test("no saved text makes the reader throw", () => {
  const good = toRecord(MEMBER, new RingTable(), 1);
  const texts = fc.oneof(fc.string(), fc.json());
  fc.assert(
    fc.property(texts, (state) => {
      const { members, bad } = fromRecords([{ ...good, state }]);
      expect(members.length + bad).toBe(1);
    }),
  );
});
