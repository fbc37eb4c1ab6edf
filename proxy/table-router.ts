/**
 * The engine's `Router` over a routing table: where the two ports meet.
 *
 * A candidate is the upstream: the same object goes from the table to the engine and back, and the
 * answer to a pick is one reused object, so nothing is allocated per request.
 */
import type { RoutingTable } from "../routing/routing-table.ts";
import type { Candidate, NoPickReason } from "../routing/types.ts";
import type { AttemptOutcome, NoPickCode, Pick, PickRequest, Router, Upstream } from "./types.ts";

/** Sends each request where the table says. */
export class TableRouter implements Router {
  readonly #table: RoutingTable;
  readonly #nowMs: () => number;
  readonly #picked: { kind: "upstream"; upstream: Candidate; reason: string } = {
    kind: "upstream",
    upstream: NO_CANDIDATE,
    reason: "",
  };
  /** False until the table holds a snapshot: "no such app" would be a lie before. */
  isReady = false;

  /** `nowMs` is monotonic. */
  constructor(table: RoutingTable, nowMs: () => number) {
    this.#table = table;
    this.#nowMs = nowMs;
  }

  pick(request: PickRequest): Pick {
    const { candidate, reason } = this.#table.pick(request.host, request.excluded, this.#nowMs());
    if (candidate === null) {
      return this.isReady ? NO_PICKS[reason as NoPickReason] : NOT_READY;
    }
    this.#picked.upstream = candidate;
    this.#picked.reason = reason;
    return this.#picked;
  }

  started(upstream: Upstream): boolean {
    return this.#table.started(upstream as Candidate);
  }

  finished(upstream: Upstream, _outcome: AttemptOutcome): void {
    this.#table.finished(upstream as Candidate);
  }

  connectFailed(upstream: Upstream, _code: string): void {
    this.#table.connectFailed(upstream as Candidate, this.#nowMs());
  }

  connectRtt(upstream: Upstream, ms: number): void {
    this.#table.connected(upstream as Candidate, ms);
  }
}

function noPick(code: NoPickCode): Pick {
  return { kind: "none", code };
}

const NO_PICKS: Readonly<Record<NoPickReason, Pick>> = {
  noApp: noPick("ROUTE_NO_APP"),
  noMachine: noPick("ROUTE_NO_MACHINE"),
  allFull: noPick("ROUTE_ALL_FULL"),
};
const NOT_READY: Pick = noPick("ROUTE_NOT_READY");
/** Stands in the reused answer before the first pick. */
const NO_CANDIDATE: Candidate = {
  key: "",
  appId: "",
  machineId: "",
  serviceName: "",
  host: "",
  port: 0,
  isTls: false,
  nodeId: "",
  region: "",
  softLimit: 0,
  hardLimit: 0,
  rttMs: 0,
  isMeasured: false,
  slot: 0,
};
