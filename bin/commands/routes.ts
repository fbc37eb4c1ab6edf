/** `patina routes` and `patina explain`: what an edge's routing table says. */
import { joinHostPort } from "#base/host-port.ts";
import { alignColumns } from "../text-table.ts";
import type { GlobalOptions } from "../targets.ts";
import { askReplica } from "./admin.ts";

interface Routes {
  readonly total: number;
  readonly routes: readonly {
    readonly hostname: string;
    readonly app: string | null;
    readonly candidates: number;
    readonly excluded: number;
    readonly nearest: {
      readonly machine: string;
      readonly region: string;
      readonly rttMs: number;
    } | null;
  }[];
}

interface Explained {
  readonly host: string;
  readonly app: string | null;
  readonly candidates: readonly {
    readonly machine: string;
    readonly service: string;
    readonly address: { readonly host: string; readonly port: number };
    readonly region: string;
    readonly rttMs: number;
    readonly isMeasured: boolean;
    readonly inFlight: number;
    readonly softLimit: number;
    readonly hardLimit: number;
    readonly band: string;
    readonly avoidedFor: string;
  }[];
  readonly excluded: readonly {
    readonly machine: string;
    readonly service: string;
    readonly reason: string;
  }[];
}

/** Flags of both. */
export interface RouteOptions extends GlobalOptions {
  readonly json?: boolean;
}

/** Lists hostnames and where they go. */
export async function routes(options: RouteOptions & { readonly limit: number }): Promise<void> {
  const value = (await askReplica(
    { Edge: { Routes: { limit: options.limit } } },
    options,
  )) as Routes;
  if (options.json === true) return printJson(value);
  const rows = value.routes.map(({ hostname, app, candidates, excluded, nearest }) => [
    hostname,
    app ?? "-",
    `${candidates} taking traffic`,
    excluded === 0 ? "" : `${excluded} not`,
    nearest ? `nearest ${nearest.machine} (${nearest.region}, ${ms(nearest.rttMs)})` : "nowhere",
  ]);
  process.stdout.write(alignColumns(rows));
  if (rows.length < value.total) {
    process.stderr.write(`${rows.length} of ${value.total} hostnames; --limit shows more\n`);
  }
}

/** Says where one hostname goes, in order, and why not elsewhere. */
export async function explain(host: string, options: RouteOptions): Promise<void> {
  const value = (await askReplica({ Edge: { Explain: { host } } }, options)) as Explained;
  if (options.json === true) return printJson(value);
  if (value.app === null) {
    process.stdout.write(`${value.host}: no app has this hostname\n`);
    return;
  }
  const candidates = value.candidates.map((one, at) => [
    `  ${at + 1}.`,
    `${one.machine}/${one.service}`,
    joinHostPort(one.address.host, one.address.port),
    one.region,
    `${ms(one.rttMs)} ${one.isMeasured ? "measured" : "guessed"}`,
    `${one.inFlight} in flight of ${limitText(one.softLimit)}/${limitText(one.hardLimit)}`,
    BANDS[one.band] ?? one.band,
    AVOIDED[one.avoidedFor] ?? one.avoidedFor,
  ]);
  const excluded = value.excluded.map(({ machine, service, reason }) => [
    "  -",
    service === "" ? machine : `${machine}/${service}`,
    reason,
  ]);
  process.stdout.write(`${value.host}: app ${value.app}\n`);
  process.stdout.write(alignColumns(candidates));
  if (excluded.length > 0) process.stdout.write(`takes no traffic:\n${alignColumns(excluded)}`);
}

function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`;
}

/** 0 = no limit. */
function limitText(limit: number): string {
  return limit === 0 ? "any" : String(limit);
}

const BANDS: Readonly<Record<string, string>> = {
  belowSoft: "below its soft limit",
  softToHard: "over its soft limit",
  full: "full",
};
const AVOIDED: Readonly<Record<string, string>> = {
  connectFailed: "avoided: a connect failed",
  hostDown: "avoided: its host is down",
  denied: "takes nothing: it went down by a change that is held",
};
