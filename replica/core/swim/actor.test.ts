import { expect, test } from "vitest";
import {
  type Actor,
  isPeerOf,
  isSameActor,
  isSameReplica,
  placeholderActor,
  winsConflict,
} from "./actor.ts";

const ACTOR: Actor = {
  id: "00112233-4455-6677-8899-aabbccddeeff",
  addr: "10.0.0.1:4001",
  ts: 0x684e_e180_0000_0000n,
  clusterId: 0,
  memberId: null,
};

test.each<[string, Partial<Actor>]>([
  ["id", { id: "10112233-4455-6677-8899-aabbccddeeff" }],
  ["address", { addr: "10.0.0.1:4002" }],
  ["stamp", { ts: ACTOR.ts + 16n }],
  ["cluster id", { clusterId: 1 }],
  ["member id", { memberId: 0 }],
])("actors that differ in their %s are different identities", (_field, difference) => {
  expect(isSameActor(ACTOR, { ...ACTOR, ...difference })).toBe(false);
});

test("stamps within one nanosecond are the same identity", () => {
  expect(isSameActor(ACTOR, { ...ACTOR, ts: ACTOR.ts + 1n })).toBe(true);
});

test("the same replica is told by its id, whatever its address", () => {
  expect(isSameReplica(ACTOR, { ...ACTOR, addr: "10.9.9.9:1", ts: 1n })).toBe(true);
  expect(isSameReplica(ACTOR, { ...ACTOR, id: "10112233-4455-6677-8899-aabbccddeeff" })).toBe(
    false,
  );
});

test("a placeholder stands for the replica at its address", () => {
  expect(isSameReplica(ACTOR, placeholderActor(ACTOR.addr))).toBe(true);
  expect(isSameReplica(placeholderActor("10.0.0.1:4002"), ACTOR)).toBe(false);
});

test("a known identity outlives news only with a strictly newer stamp", () => {
  const moved = { ...ACTOR, addr: "10.9.9.9:1" };
  expect(winsConflict(ACTOR, moved)).toBe(false);
  expect(winsConflict(ACTOR, { ...moved, ts: ACTOR.ts + 16n })).toBe(false);
  expect(winsConflict(ACTOR, { ...moved, ts: ACTOR.ts - 16n })).toBe(true);
  expect(winsConflict(ACTOR, { ...moved, ts: ACTOR.ts - (1n << 32n) })).toBe(true);
});

test("peers share cluster id and member id", () => {
  expect(isPeerOf(ACTOR, { ...ACTOR, addr: "10.9.9.9:1" })).toBe(true);
  expect(isPeerOf(ACTOR, { ...ACTOR, clusterId: 2 })).toBe(false);
  expect(isPeerOf(ACTOR, { ...ACTOR, memberId: 2 })).toBe(false);
});
