/**
 * Routing's shared nouns: where this edge stands, what a candidate is, and what a pick says.
 */
import type { RowChange } from "../replica/types.ts";

/** A place on the globe, in degrees; north and east are positive. */
export interface Coordinates {
  readonly latitude: number;
  readonly longitude: number;
}

/** Where this edge stands: what distances are guessed from until there is a measurement. */
export interface Standpoint {
  /** This edge's region code. */
  readonly region: string;
  /** Absent: regions are compared by name alone. */
  readonly coordinates?: Coordinates;
}

/**
 * One machine service that takes traffic, as a request sees it. Immutable, except for what its
 * load slot counts: a request keeps the object it was given, whatever the table learns meanwhile.
 */
export interface Candidate {
  /**
   * `machineId/serviceName@address`, with `+tls` for HTTPS: unique and stable; a service that moves
   * is another one.
   */
  readonly key: string;
  readonly appId: string;
  readonly machineId: string;
  readonly serviceName: string;
  /** IP literal without brackets. */
  readonly host: string;
  readonly port: number;
  /** Its protocol is `https`. */
  readonly isTls: boolean;
  readonly nodeId: string;
  readonly region: string;
  /** Requests in flight up to which the candidate is preferred; >= 1, `Infinity` = no soft limit. */
  readonly softLimit: number;
  /** Requests in flight at which nothing more is sent; 0 = no hard limit. */
  readonly hardLimit: number;
  /** Round trip to the machine's host in ms as known when the order was made. */
  readonly rttMs: number;
  /** Whether `rttMs` was measured, or guessed from distance. */
  readonly isMeasured: boolean;
  /** Where requests in flight are counted. */
  readonly slot: number;
}

/** Load band of a candidate: below soft, soft to hard, or full. */
export type LoadBand = "belowSoft" | "softToHard" | "full";

/** Why a candidate was chosen. */
export type PickReason =
  /** The nearest below its soft limit. */
  | "nearest"
  /** A nearer one is at its soft limit. */
  | "spill"
  /** All are at their soft limit: the nearest below its hard limit. */
  | "overSoft"
  /** Nothing healthy is left: one that failed to connect lately, or whose host is down. */
  | "lastResort";

/** Why there is no candidate. */
export type NoPickReason =
  /** No app has this hostname. */
  | "noApp"
  /** The app has no machine that takes traffic, or each was tried already. */
  | "noMachine"
  /** Every machine is at its hard limit. */
  | "allFull";

/** How a candidate stands right now, for people (`explain`). */
export interface CandidateView {
  readonly candidate: Candidate;
  readonly inFlight: number;
  readonly band: LoadBand;
  /** Empty, or why it is avoided: `connectFailed`, `hostDown`; `denied` = it takes nothing at all. */
  readonly avoidedFor: "" | "connectFailed" | "hostDown" | "denied";
}

/** A machine that takes no traffic, and why. */
export interface ExcludedMachine {
  readonly machineId: string;
  readonly serviceName: string;
  readonly reason: string;
}

/** Everything there is to say about where a hostname goes. */
export interface Explanation {
  readonly host: string;
  readonly appId: string | null;
  /** Nearest first. */
  readonly candidates: readonly CandidateView[];
  readonly excluded: readonly ExcludedMachine[];
}

/** A row of one of the routing tables, with the columns that routing reads. */
export interface TableRow {
  readonly table: string;
  readonly key: readonly string[];
  readonly row: ImageRow;
}

/** Columns that routing reads, as plain JSON has them. */
export type ImageRow = Readonly<Record<string, string | number | null>>;

/** One row change, as the replica's change stream carries it. */
export type { RowChange };
