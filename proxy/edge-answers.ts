/**
 * What an edge says of its routing table on the admin socket: plain data, so that it can go to the
 * replica's thread, which serves that socket.
 */
import type { EdgeQuestion } from "../replica/replica.ts";
import type { RoutingTable } from "../routing/routing-table.ts";
import type { Explanation } from "../routing/types.ts";

/** One hostname and how it stands. */
export interface RouteLine {
  readonly hostname: string;
  readonly app: string | null;
  /** Candidates that take traffic. */
  readonly candidates: number;
  /** Machines of the app that take none. */
  readonly excluded: number;
  /** Where a request would go with nothing in flight; null = nowhere. */
  readonly nearest: {
    readonly machine: string;
    readonly region: string;
    readonly rttMs: number;
  } | null;
}

/** Answers from the table. Cost of `routes`: the machines behind `limit` hostnames. */
export function answerEdge(
  table: RoutingTable,
  question: Exclude<EdgeQuestion, { kind: "quarantine" }>,
  nowMs: number,
): unknown {
  if (question.kind === "explain") return explanationView(table.explain(question.host, nowMs));
  const hostnames: string[] = [];
  let total = 0;
  for (const hostname of table.hostnames()) {
    if (hostnames.length < question.limit) hostnames.push(hostname);
    total += 1;
  }
  return { total, routes: hostnames.toSorted().map((name) => routeLine(table, name, nowMs)) };
}

function routeLine(table: RoutingTable, hostname: string, nowMs: number): RouteLine {
  const { appId, candidates, excluded } = table.explain(hostname, nowMs);
  const first = candidates.find((view) => view.avoidedFor === "")?.candidate;
  return {
    hostname,
    app: appId,
    candidates: candidates.length,
    excluded: excluded.length,
    nearest: first ? { machine: first.machineId, region: first.region, rttMs: first.rttMs } : null,
  };
}

function explanationView({ host, appId, candidates, excluded }: Explanation): unknown {
  return {
    host,
    app: appId,
    candidates: candidates.map(({ candidate, inFlight, band, avoidedFor }) => ({
      machine: candidate.machineId,
      service: candidate.serviceName,
      address: { host: candidate.host, port: candidate.port },
      node: candidate.nodeId,
      region: candidate.region,
      rttMs: candidate.rttMs,
      isMeasured: candidate.isMeasured,
      inFlight,
      softLimit: Number.isFinite(candidate.softLimit) ? candidate.softLimit : 0,
      hardLimit: candidate.hardLimit,
      band,
      avoidedFor,
    })),
    excluded: excluded.map(({ machineId, serviceName, reason }) => ({
      machine: machineId,
      service: serviceName,
      reason,
    })),
  };
}
