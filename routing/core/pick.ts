/**
 * The routing decision: among an app's candidates, nearest first, the one a request goes to.
 *
 * Rules, in order: (1) below the soft limit before anything else; the nearest of them; (2) else
 * between soft and hard limit, the nearest; (3) else nothing. Candidates about equally near (their
 * round trips differ by at most 1 ms or a tenth) are a tie, which the fewest requests in flight
 * decide, and after that a rotating start, so that equals share. A candidate that failed to connect
 * lately, or whose host is down, is used only when none other is left: being wrong about it costs a
 * retry, while refusing costs the request.
 *
 * One pass over an array sorted by distance; nothing is allocated.
 */
import type { Candidate, NoPickReason, PickReason } from "../types.ts";
import type { DenySet } from "./deny-set.ts";
import type { LoadSlots } from "./load-slots.ts";

/** Why a candidate is kept for the last resort. */
export type Avoidance = "" | "connectFailed" | "hostDown";

/** What a decision needs to know beside the candidates. */
export interface PickContext {
  readonly load: LoadSlots;
  /** What takes no traffic whatever the candidates say. */
  readonly denied: DenySet;
  avoidance(candidate: Candidate, nowMs: number): Avoidance;
}

/** One decision. The object is reused: read it before the next pick. */
export interface PickSlot {
  candidate: Candidate | null;
  reason: PickReason | NoPickReason;
}

/** Decides; writes the result into `result`. `excluded` are keys already tried by this request. */
export function pickCandidate(
  candidates: readonly Candidate[],
  options: {
    readonly context: PickContext;
    readonly excluded: readonly string[];
    readonly nowMs: number;
    readonly rotation: number;
  },
  result: PickSlot,
): void {
  const { context, excluded, nowMs } = options;
  const { denied } = context;
  let soft: Candidate | null = null;
  let softNearestMs = 0;
  let softLoad = 0;
  let softTies = 0;
  let hard: Candidate | null = null;
  let hardNearestMs = 0;
  let hardLoad = 0;
  let hardTies = 0;
  let lastResort: Candidate | null = null;
  let full = 0;
  let skippedNearer = false;
  const count = candidates.length;
  for (let index = 0; index < count; index++) {
    const candidate = candidates[index] as Candidate;
    if (soft !== null && !isTie(softNearestMs, candidate.rttMs)) break;
    if (excluded.length > 0 && excluded.includes(candidate.key)) continue;
    if (denied.size > 0 && denied.hasService(candidate.machineId, candidate.serviceName)) continue;
    const inFlight = context.load.inFlight(candidate.slot);
    if (candidate.hardLimit > 0 && inFlight >= candidate.hardLimit) {
      full++;
      skippedNearer ||= soft === null;
      continue;
    }
    if (context.avoidance(candidate, nowMs) !== "") {
      lastResort ??= candidate;
      continue;
    }
    if (inFlight < candidate.softLimit) {
      if (soft === null) softNearestMs = candidate.rttMs;
      softTies = soft !== null && inFlight === softLoad ? softTies + 1 : 1;
      if (soft === null || wins(inFlight, softLoad, options.rotation % softTies)) {
        soft = candidate;
        softLoad = inFlight;
      }
      continue;
    }
    skippedNearer ||= soft === null;
    if (hard !== null && !isTie(hardNearestMs, candidate.rttMs)) continue;
    if (hard === null) hardNearestMs = candidate.rttMs;
    hardTies = hard !== null && inFlight === hardLoad ? hardTies + 1 : 1;
    if (hard === null || wins(inFlight, hardLoad, options.rotation % hardTies)) {
      hard = candidate;
      hardLoad = inFlight;
    }
  }
  if (soft !== null) return settle(result, soft, skippedNearer ? "spill" : "nearest");
  if (hard !== null) return settle(result, hard, "overSoft");
  if (lastResort !== null) return settle(result, lastResort, "lastResort");
  settle(result, null, full > 0 ? "allFull" : "noMachine");
}

/** Whether two round trips are about the same: within 1 ms or a tenth of the nearer. */
export function isTie(nearerMs: number, fartherMs: number): boolean {
  return fartherMs - nearerMs <= Math.max(1, nearerMs / 10);
}

/** Fewer in flight wins; the k-th of equals wins every k-th turn, so that equals share evenly. */
function wins(inFlight: number, best: number, turn: number): boolean {
  return inFlight < best || (inFlight === best && turn === 0);
}

function settle(
  result: PickSlot,
  candidate: Candidate | null,
  reason: PickReason | NoPickReason,
): void {
  result.candidate = candidate;
  result.reason = reason;
}
