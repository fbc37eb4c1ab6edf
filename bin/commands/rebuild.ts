/**
 * `patina rebuild`: this host starts over under another cluster id, the generation, with an empty
 * database; a worker publishes its machines into it from its own source of truth.
 *
 * Replicas of different generations exchange no state, so whatever is wrong in the old one stays there.
 * Each step can be repeated: a host that is of the generation already only publishes.
 */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { PatinaError } from "#base/errors.ts";
import { rebuildMarkerOf } from "../../proxy/rebuild-hold.ts";
import { createOfCluster, storedClusterId } from "../../replica/driver/store/backup.ts";
import {
  clearStage,
  replacedPath,
  stagedPath,
} from "../../replica/driver/store/staged-database.ts";
import { callApi } from "../api-client.ts";
import { confirm } from "../confirm.ts";
import { crsqlitePath, sqlDeadlinePath } from "../setup/paths.js";
import {
  apiTarget,
  clusterIdTarget,
  configFileOf,
  databaseTarget,
  type GlobalOptions,
} from "../targets.ts";
import { publish } from "./publish.ts";
import { isRunningOn, upgrade } from "./upgrade.ts";

/** Flags of `rebuild`. */
export type RebuildOptions = GlobalOptions & {
  /** JSON of all machines of this host. */
  readonly from?: string;
  readonly perSecond: number;
  readonly token?: string;
  readonly yes?: boolean;
};

/** Starts over, then publishes. Throws `USAGE` when it is not agreed to; nothing was done then. */
export async function rebuild(generation: number, options: RebuildOptions): Promise<void> {
  const path = databaseTarget(options);
  const present = storedClusterId(path) ?? clusterIdTarget(options) ?? 0;
  if (present === generation && existsSync(path))
    say(`${path}: of generation ${generation} already`);
  else await startOver({ path, present, generation }, options);
  if (options.from === undefined) return;
  const api = apiTarget(options);
  await answering(api);
  await publish(options.from, api, { perSecond: options.perSecond });
}

/** No more machines will come: routing changes over to what there is. */
export async function finish(options: RebuildOptions): Promise<void> {
  const marker = rebuildMarkerOf(databaseTarget(options));
  if (!existsSync(marker)) return say("no rebuild is under way here");
  const plan = "this has requests routed by the machines that are published by now, and no others";
  await confirm(plan, options);
  rmSync(marker, { force: true });
  say("routing changes over within a second");
}

async function startOver(
  { path, present, generation }: { path: string; present: number; generation: number },
  options: RebuildOptions,
): Promise<void> {
  const plan =
    `this puts the database ${path} of generation ${present} aside, as ${replacedPath(path)}, and starts` +
    ` with an empty one of generation ${generation}: only what is published anew will be in it`;
  await confirm(plan, options);
  clearStage(path);
  createOfCluster(
    {
      path: stagedPath(path),
      extensionPath: crsqlitePath(),
      deadlinePath: sqlDeadlinePath(),
    },
    generation,
  );
  writeFileSync(rebuildMarkerOf(path), `${generation}\n`);
  await changeOver(path, options);
}

/** A process that runs gives way to one that opens the staged database; otherwise the next start does. */
export async function changeOver(path: string, options: GlobalOptions): Promise<void> {
  // The process keeps the flags that it was started with.
  if (isRunningOn(path, options)) await upgrade({ config: configFileOf(options) });
  else say("no replica runs here: the next start takes it");
}

/** A process that has just taken over binds its API a moment later. */
async function answering(api: ReturnType<typeof apiTarget>): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += ASK_PERIOD_MS) {
    try {
      await (await callApi(api, { method: "GET", path: "/v1/status" })).text();
      return;
    } catch (error) {
      const mayCome = error instanceof PatinaError && waitedMs < ANSWER_LIMIT_MS;
      if (!mayCome) throw error;
    }
    await wait(ASK_PERIOD_MS);
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

const ASK_PERIOD_MS = 100;
const ANSWER_LIMIT_MS = 30_000;
