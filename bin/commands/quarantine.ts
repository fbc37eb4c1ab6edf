/** `patina quarantine`: changes and origins that an edge keeps out of its routing table. */
import { errorText, PatinaError } from "#base/errors.ts";
import { listing, readQuarantineFile } from "../../proxy/quarantine-keeper.ts";
import type { WaitingChange } from "../../routing/core/canary.ts";
import {
  NO_QUARANTINE,
  type ChangeName,
  type Freeze,
  type Hold,
  type OriginHold,
} from "../../routing/core/quarantine.ts";
import { loadConfig, stateFolderOf } from "../config-file.ts";
import { configFileOf, type GlobalOptions } from "../targets.ts";
import { alignColumns } from "../text-table.ts";
import { askReplica } from "./admin.ts";

type Options = GlobalOptions & { readonly json?: boolean };

interface Listing {
  readonly holds: readonly Hold[];
  readonly origins: readonly OriginHold[];
  readonly waiting: readonly WaitingChange[];
  readonly frozen: Freeze | null;
}

/** Lists what is held, and what waits; of an edge that does not run, from its file. */
export async function list(options: Options): Promise<void> {
  const { holds, origins, waiting, frozen } = (await ask("list", "", options).catch(
    (error: unknown) => fromFile(error, options),
  )) as Listing;
  if (options.json === true) return printJson({ holds, origins, waiting, frozen });
  if (frozen !== null) {
    const since = new Date(frozen.sinceMs).toISOString();
    process.stderr.write(
      `frozen since ${since}: the table takes nothing but what goes down; patina quarantine thaw\n`,
    );
  }
  if (holds.length + origins.length + waiting.length === 0) {
    process.stderr.write("nothing is held\n");
    return;
  }
  const rows = holds.map(({ id, change, isDown, expiresMs, stalls }) => [
    id,
    isDown ? "in force" : "held",
    `${change.table} ${change.key}`,
    appText(change),
    versionText(change),
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
  const unseen = waiting.map(({ id, change, leftMs, victims }) => [
    id,
    "waiting",
    `${change.table} ${change.key}`,
    appText(change),
    versionText(change),
    victims === 0 ? "unseen shape" : `stalled ${victims} other${victims === 1 ? "" : "s"}`,
    `${(leftMs / 1000).toFixed(1)} s left`,
  ]);
  process.stdout.write(alignColumns([...rows, ...others, ...unseen]));
}

/** Prints everything about one hold, or ends or drops it, as JSON; `thaw` takes no id. */
export async function one(
  action: "show" | "release" | "drop" | "thaw",
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
    return listing(state ?? NO_QUARANTINE, []);
  } catch (thrown) {
    throw new PatinaError("USAGE", `the quarantine's file cannot be read: ${errorText(thrown)}`);
  }
}

function appText({ app }: ChangeName): string {
  return app === "" ? "" : `app ${app}`;
}

function versionText({ version, actorId }: ChangeName): string {
  return `version ${version} of ${actorId === "" ? "an actor not known" : actorId}`;
}

function untilText(expiresMs: number | null): string {
  return expiresMs === null ? "dropped" : `until ${new Date(expiresMs).toISOString()}`;
}

function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}
