import { expect, test } from "vitest";
import { readPacketHeader } from "./packet-header.ts";
import {
  createResetSecret,
  createStatelessReset,
  createVersionNegotiation,
  ReplyBudget,
  resetToken,
  tokenNumber,
} from "./stateless.ts";

test("version negotiation swaps the ids and lists version 1", () => {
  const header = readPacketHeader(Buffer.from("c0ff00001d02aabb01cc", "hex"));
  if (header === null) throw new Error("unreadable");
  const reply = createVersionNegotiation(header);
  expect((reply[0] ?? 0) & 0x80).toBe(0x80);
  expect(reply.subarray(1).toString("hex")).toBe("0000000001cc02aabb00000001");
});

test("a reset is smaller than its cause and ends with the token of the id", () => {
  const secret = createResetSecret("key");
  const packet = Buffer.concat([Buffer.from("400102030405060708", "hex"), Buffer.alloc(60)]);
  const token = resetToken(secret, packet.subarray(1, 9));
  const reset = createStatelessReset(secret, packet);
  expect(reset?.length).toBe(43);
  expect(reset?.subarray(-16)).toEqual(token);
  expect(createStatelessReset(secret, packet.subarray(0, 30))?.length).toBe(29);
  expect(createStatelessReset(secret, packet.subarray(0, 21))).toBeNull();
  expect(tokenNumber(token).toString(16).padStart(32, "0")).toBe(token.toString("hex"));
});

test("the reply budget refills every second", () => {
  const budget = new ReplyBudget(2);
  const taken = [0, 1, 2, 999, 1_000].map((nowMs) => budget.take(nowMs));
  expect(taken).toEqual([true, true, false, false, true]);
});
