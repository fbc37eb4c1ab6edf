/** `patina status`: how a replica stands, for people. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { errorText } from "#base/errors.ts";
import { alignColumns } from "../text-table.ts";
import { listenerCertificates, type GlobalOptions } from "../targets.ts";
import { askReplica } from "./admin.ts";

/** What the admin socket answers to `Status`. */
interface Status {
  readonly actor: string;
  readonly gossip: string;
  readonly incarnation: number;
  readonly members: readonly {
    readonly actor: string;
    readonly address: string;
    readonly state: string;
    readonly rttMs: number | null;
    readonly ring: number | null;
  }[];
  readonly heads: Readonly<Record<string, number>>;
  readonly needs: number;
  readonly store: { readonly dbVersion: number; readonly queued: number };
  /** Why nothing can be written; null = it can be. */
  readonly fault: string | null;
  readonly certificate: {
    readonly file: string;
    readonly expiresAt: string;
    readonly daysLeft: number;
    readonly isExpired: boolean;
  } | null;
  /** What an edge keeps out of its table; null = it is none. */
  readonly quarantine: {
    readonly problem?: string;
    readonly holds?: readonly unknown[];
    readonly origins?: readonly unknown[];
    readonly frozen?: { readonly sinceMs: number; readonly peers: number } | null;
  } | null;
  /** Actors whose changes are broadcast more slowly than they write. */
  readonly braked: readonly string[];
}

/** Prints a summary, or with `json` everything as it came. */
export async function status(options: GlobalOptions & { readonly json?: boolean }): Promise<void> {
  const value = (await askReplica("Status", options)) as Status;
  const text = options.json === true ? `${JSON.stringify(value, null, 2)}\n` : summary(value);
  // The replica knows nothing of the listener's certificates; their files do.
  const listener = listenerCertificates(options).flatMap(listenerText);
  process.stdout.write(text);
  if (options.json !== true) process.stdout.write(listener.map((line) => `${line}\n`).join(""));
}

function expiryOf(file: string): NonNullable<Status["certificate"]> {
  const expiresAt = new X509Certificate(readFileSync(file)).validToDate;
  const leftMs = expiresAt.getTime() - Date.now();
  const daysLeft = Math.floor(leftMs / 86_400_000);
  return { file, expiresAt: expiresAt.toISOString(), daysLeft, isExpired: leftMs <= 0 };
}

function listenerText(file: string): string[] {
  let certificate: NonNullable<Status["certificate"]>;
  try {
    certificate = expiryOf(file);
  } catch (error) {
    return [`UNREAD   ${file}: ${errorText(error)}`];
  }
  if (!certificate.isExpired) return certificateText(certificate);
  return [`EXPIRED  ${file} at ${certificate.expiresAt}: clients refuse it`];
}

/** Nothing while the expiry is far. */
function certificateText(certificate: Status["certificate"]): string[] {
  if (certificate === null || certificate.daysLeft > EXPIRY_DAYS) return [];
  const { file, expiresAt, daysLeft, isExpired } = certificate;
  return isExpired
    ? [`EXPIRED  ${file} at ${expiresAt}: nothing new is heard of until it is replaced`]
    : [`EXPIRES  ${file} in ${daysLeft} days, at ${expiresAt}`];
}

/** As the warnings in the log begin. */
const EXPIRY_DAYS = 30;

/** Nothing while all is taken. */
function quarantineText(quarantine: Status["quarantine"]): string[] {
  const { problem, holds = [], origins = [], frozen = null } = quarantine ?? {};
  if (problem !== undefined) return [`EDGE     ${problem}`];
  const lines: string[] = [];
  if (frozen !== null) {
    const since = new Date(frozen.sinceMs).toISOString();
    lines.push(
      `FROZEN   since ${since}, with ${frozen.peers} others bounced: patina quarantine thaw`,
    );
  }
  if (holds.length + origins.length > 0) {
    const changes = `${holds.length} ${holds.length === 1 ? "change" : "changes"}`;
    const all = `${origins.length} ${origins.length === 1 ? "origin" : "origins"}`;
    lines.push(`HELD     ${changes}, ${all}: patina quarantine list`);
  }
  return lines;
}

function summary(value: Status): string {
  const { actor, gossip, incarnation, members, heads, needs, store, fault, braked } = value;
  const needed = needs === 0 ? "nothing" : `${needs} versions`;
  const up = members.filter(({ state }) => state === "alive").length;
  const lines = [
    `actor    ${actor}  incarnation ${incarnation}`,
    `gossip   ${gossip}`,
    `store    local version ${store.dbVersion}, ${store.queued} requests waiting`,
    ...(fault === null ? [] : [`FAULT    ${fault}`]),
    ...(braked.length === 0 ? [] : [`BRAKED   ${braked.join(", ")}`]),
    ...certificateText(value.certificate),
    ...quarantineText(value.quarantine),
    `needs    ${needed}`,
    `members  ${members.length}, ${up} alive`,
  ];
  const rows = members.map(({ actor: id, address, state, rttMs, ring }) => [
    `  ${address}`,
    state,
    rttMs === null ? "-" : `${rttMs.toFixed(1)} ms`,
    ring === null ? "-" : `ring ${ring}`,
    `head ${heads[id] ?? 0}`,
    id,
  ]);
  const others = Object.keys(heads).filter(
    (id) => id !== actor && members.every((member) => member.actor !== id),
  );
  const past = others.map((id) => ["  not a member", "", "", "", `head ${heads[id] ?? 0}`, id]);
  const own = ["  here", "", "", "", `head ${heads[actor] ?? 0}`, actor];
  return `${lines.join("\n")}\n${alignColumns([own, ...rows, ...past])}`;
}
