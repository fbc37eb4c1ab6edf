/** `patina quarantine`: changes and origins that an edge keeps out of its routing table. */
import { errorText, PatinaError } from "#base/errors.ts";
import { listing, readQuarantineFile } from "../../proxy/quarantine-keeper.ts";
import type { Hold, OriginHold } from "../../routing/core/quarantine.ts";
import { loadConfig, stateFolderOf } from "../config-file.ts";
import { configFileOf, type GlobalOptions } from "../targets.ts";
import { alignColumns } from "../text-table.ts";
import { askReplica } from "./admin.ts";

type Options = GlobalOptions & { readonly json?: boolean };

interface Listing {
  readonly holds: readonly Hold[];
  readonly origins: readonly OriginHold[];
}

/** Lists what is held; of an edge that does not run, from its file. */
export async function list(options: Options): Promise<void> {
  const { holds, origins } = (await ask("list", "", options).catch((error: unknown) =>
    fromFile(error, options),
  )) as Listing;
  if (options.json === true) return printJson({ holds, origins });
  if (holds.length + origins.length === 0) {
    process.stderr.write("nothing is held\n");
    return;
  }
  const rows = holds.map(({ id, change, isDown, expiresMs, stalls }) => [
    id,
    isDown ? "in force" : "held",
    `${change.table} ${change.key}`,
    change.app === "" ? "" : `app ${change.app}`,
    `version ${change.version} of ${change.actorId === "" ? "an actor not known" : change.actorId}`,
    `${stalls} ${stalls === 1 ? "stall" : "stalls"}`,
    untilText(expiresMs),
  ]);
  const others = origins.map(({ id, actorId, expiresMs }) => [
    id,
    "held",
    "every row",
    "",
    `of ${actorId}`,
    "",
    untilText(expiresMs),
  ]);
  process.stdout.write(alignColumns([...rows, ...others]));
}

/** Prints everything about one hold, or ends or drops it, as JSON. */
export async function one(
  action: "show" | "release" | "drop",
  id: string,
  options: Options,
): Promise<void> {
  const value = await ask(action, id, options);
  const problem = (value as { readonly problem?: string }).problem;
  if (problem !== undefined) throw new PatinaError("ADMIN_REFUSED", problem);
  printJson(value);
}

function ask(action: string, id: string, options: Options): Promise<unknown> {
  return askReplica({ Edge: { Quarantine: { action, id } } }, options);
}

function fromFile(error: unknown, options: Options): unknown {
  if (!(error instanceof PatinaError) || error.code !== "ADMIN_UNREACHABLE") throw error;
  const file = configFileOf(options);
  const { config } = loadConfig({ file, environment: process.env, mode: "agent" });
  process.stderr.write("the edge does not run; this is what its next start finds\n");
  try {
    const state = readQuarantineFile(stateFolderOf(config));
    return state === null ? { holds: [], origins: [] } : listing(state);
  } catch (thrown) {
    throw new PatinaError("USAGE", `the quarantine's file cannot be read: ${errorText(thrown)}`);
  }
}

function untilText(expiresMs: number | null): string {
  return expiresMs === null ? "dropped" : `until ${new Date(expiresMs).toISOString()}`;
}

function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}
