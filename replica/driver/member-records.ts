/** Members as they are kept over a restart: between SWIM's records and the store's rows. */
import { failure, success, type Result } from "#base/machine.ts";
import type { RingTable } from "../core/ring-table.ts";
import { NIL_ACTOR_ID } from "../core/swim/actor.ts";
import type { MemberUpdate } from "../core/swim/packet.ts";
import type { MemberRecord } from "./store/store-messages.ts";

/** The store's row for a member; `nowMs` is wall time. The column holds whole milliseconds. */
export function toRecord(member: MemberUpdate, rings: RingTable, nowMs: number): MemberRecord {
  const { actor, incarnation, state } = member;
  return {
    actorId: actor.id,
    address: actor.addr,
    state: JSON.stringify({
      ts: actor.ts.toString(),
      clusterId: actor.clusterId,
      memberId: actor.memberId,
      incarnation,
      state,
    }),
    rttMinMs: rings.rttMs(actor.addr),
    updatedAtMs: Math.round(nowMs),
  };
}

/** Members from the store's rows; a row that makes no sense is left out, and counted. */
export function fromRecords(records: readonly MemberRecord[]): {
  readonly members: MemberUpdate[];
  readonly bad: number;
} {
  const read = records.map(fromRecord);
  const members = read.flatMap((one) => (one.ok ? [one.value] : []));
  return { members, bad: read.length - members.length };
}

function fromRecord(record: MemberRecord): Result<MemberUpdate, string> {
  let saved: unknown;
  try {
    saved = JSON.parse(record.state);
  } catch (error) {
    if (error instanceof SyntaxError) return failure(error.message);
    throw error;
  }
  const { ts, clusterId, memberId, incarnation, state } = (saved ?? {}) as Record<string, unknown>;
  if (typeof ts !== "string" || !/^\d{1,20}$/.test(ts)) return failure("ts");
  if (!isU16(clusterId) || !isU16(incarnation)) return failure("clusterId or incarnation");
  if (memberId !== null && !isU16(memberId)) return failure("memberId");
  if (state !== "alive" && state !== "suspect" && state !== "down") return failure("state");
  if (record.actorId === NIL_ACTOR_ID) return failure("actorId");
  const actor = { id: record.actorId, addr: record.address, ts: BigInt(ts), clusterId, memberId };
  return success({ actor, incarnation, state });
}

function isU16(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 65_535;
}
