/** For tests of Plumtree: members, changes, and what leaves. */
import type { ActorId, ColumnChange, FullChangeset } from "../../types.ts";
import { decodeUniFrame } from "../wire/uni-payload.ts";
import type { BroadcastMember, BroadcastOutput } from "./types.ts";

/** The n-th replica; actor ids are in the order of n. */
export function member(n: number, ring: number | null = 0): BroadcastMember {
  const rttMs = ring === null ? null : ([2, 10, 30, 70, 150, 250][ring] ?? 250);
  return { actorId: actorId(n), address: `10.0.0.${n}:8787`, clusterId: 0, ring, rttMs };
}

/** Actor id of the n-th replica. */
export function actorId(n: number): ActorId {
  return `${n.toString(16).padStart(8, "0")}-0000-4000-8000-000000000000`;
}

/** A version of one row. */
export function change(origin: number, version: number, column: Partial<ColumnChange> = {}) {
  const pk = new Uint8Array([1, 9, version & 127]);
  const base = { table: "t", pk, cid: "v", val: "x", colVersion: 1, seq: 0, cl: 1 };
  const changes = [{ ...base, ...column }];
  const seqs = { start: 0, end: 0 };
  const of = { actorId: actorId(origin), version, changes, seqs, lastSeq: 0, ts: 1n };
  return { kind: "full", ...of } as const satisfies FullChangeset;
}

/** Every message that leaves in these outputs, with its target. */
export function sentMessages(outputs: readonly BroadcastOutput[]) {
  return outputs.flatMap((output) => {
    if (output.kind !== "send") return [];
    return output.frames.map((frame) => {
      const decoded = decodeUniFrame(frame);
      if (!decoded.ok || decoded.value.payload.kind !== "plumtree") throw new Error("no plumtree");
      const { message } = decoded.value.payload;
      return { target: output.target, isUrgent: output.isUrgent, message };
    });
  });
}
