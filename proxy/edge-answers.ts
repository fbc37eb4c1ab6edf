/**
 * What an edge says of its routing table on the admin socket: plain data, so that it can go to the
 * replica's thread, which serves that socket.
 */
import type { EdgeQuestion } from "../replica/replica.ts";
import type { RoutingTable } from "../routing/routing-table.ts";
import type { Explanation } from "../routing/types.ts";
import type { ChangesetKeeper } from "./changeset-keeper.ts";
import type { DataPlane } from "./data-plane.ts";
import type { QuarantineKeeper } from "./quarantine-keeper.ts";
import type { DataPlaneThreads } from "./threads/data-plane-threads.ts";

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

/** Parts of an edge that know what is held and what waits; null before there are any. */
export interface QuarantineParts {
  readonly plane: Pick<DataPlane, "table" | "feed"> | null;
  readonly planes: DataPlaneThreads | null;
  readonly keeper: QuarantineKeeper | null;
  readonly changesets: ChangesetKeeper | null;
}

/** Shows, releases or drops what is held; what waits can be released. */
function answerQuarantine(
  { plane, planes, keeper, changesets }: QuarantineParts,
  question: Extract<EdgeQuestion, { kind: "quarantine" }>,
): unknown {
  if (plane === null) return null;
  const release = (id: string): void => {
    plane.feed.release(id);
    planes?.tell({ kind: "releaseWaiting", id });
  };
  const ofReplica = changesets?.answer(question.action, question.id);
  if (ofReplica !== undefined && question.action !== "list") return ofReplica;
  const answer = keeper?.answer(question, { waiting: plane.feed.waiting, release }) ?? null;
  return question.action === "list"
    ? { ...(answer as object), changesets: ofReplica ?? [] }
    : answer;
}

/** Answers whatever is asked of an edge; null where there is nothing to answer from. */
export function answerQuestion(parts: QuarantineParts, question: EdgeQuestion): unknown {
  if (question.kind === "quarantine") return answerQuarantine(parts, question);
  const table = parts.plane?.table;
  return table ? answerEdge(table, question, performance.now()) : null;
}

/** Answers from the table. Cost of `routes`: the machines behind `limit` hostnames. */
function answerEdge(
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
