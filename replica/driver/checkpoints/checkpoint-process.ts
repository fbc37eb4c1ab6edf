/**
 * Entry of the process in which a running replica has checkpoints taken, and a new one its database
 * unpacked: what it needs of CPU and memory, and whatever goes wrong in it, concerns nobody else.
 *
 * The parent sends one job and gets one answer. Without a parent there is nobody to work for.
 */
import { setPriority } from "node:os";
import { errorText, PatinaError } from "#base/errors.ts";
import type { CheckpointsConfig } from "../../config.ts";
import { storedClusterId } from "../store/backup.ts";
import {
  chooseCheckpoint,
  openTarget,
  placeText,
  refuseOtherCluster,
  restoreCheckpoint,
  takeCheckpoint,
  type KeptCheckpoint,
} from "./checkpoints.ts";
import { isDue, superfluous } from "./schedule.ts";

/** What is to be done. */
export type CheckpointJob = {
  /** The database. */
  readonly path: string;
  readonly target: string;
  /** Of the config; a database that was moved to another says so itself. */
  readonly clusterId: number;
  readonly config: CheckpointsConfig;
} & (
  | {
      /** Takes one when the newest is old enough, and removes those beyond `keep`. */
      readonly kind: "keep";
    }
  | { /** Makes the database, which is not there, of the newest. */ readonly kind: "boot" }
);

/** What came of it. */
export type CheckpointAnswer =
  | {
      readonly kind: "kept";
      /** The newest there is now. */
      readonly newest: KeptCheckpoint;
      /** Whether it was taken by this job. */
      readonly isNew: boolean;
      readonly removed: number;
    }
  | { readonly kind: "booted"; readonly from: string; readonly taken: string }
  | { readonly kind: "failed"; readonly code: string; readonly message: string };

process.on("disconnect", () => process.exit());
process.once("message", (job: CheckpointJob) => {
  // A replica that waits for its database has nothing else to do.
  if (job.kind === "keep") setPriority(BACKGROUND);
  void perform(job).then((answer) => process.send?.(answer, () => process.disconnect?.()));
});

async function perform(job: CheckpointJob): Promise<CheckpointAnswer> {
  try {
    return await (job.kind === "keep" ? keep(job) : boot(job));
  } catch (error) {
    const code = error instanceof PatinaError ? error.code : "INTERNAL";
    return { kind: "failed", code, message: errorText(error) };
  }
}

async function keep(job: CheckpointJob): Promise<CheckpointAnswer> {
  const { path: source, config } = job;
  const clusterId = storedClusterId(source) ?? job.clusterId;
  const { target } = await openTarget(job.target, config);
  const list = async (): Promise<KeptCheckpoint[]> =>
    (await target.list()).filter((kept) => kept.clusterId === clusterId);
  try {
    const [newest] = await list();
    if (newest !== undefined && !isDue(newest, { nowMs: Date.now(), ...config })) {
      return { kind: "kept", newest, isNew: false, removed: 0 };
    }
    await takeCheckpoint({ source, target: job.target, clusterId, config });
    const all = await list();
    const surplus = superfluous(all, config.keep);
    for (const { name } of surplus) await target.remove(name);
    const [taken] = all;
    if (taken === undefined) throw new Error(`${target.text} does not show what was put there`);
    return { kind: "kept", newest: taken, isNew: true, removed: surplus.length };
  } finally {
    target.close();
  }
}

async function boot(job: CheckpointJob): Promise<CheckpointAnswer> {
  const { path, config, clusterId } = job;
  const place = await openTarget(job.target, config);
  try {
    const name = await chooseCheckpoint(place, clusterId);
    const from = placeText(place.target, name);
    let taken = "";
    await restoreCheckpoint({
      place: { target: place.target, name },
      target: path,
      identity: { kind: "new" },
      accept: (manifest) => {
        refuseOtherCluster({ text: from, manifest }, clusterId);
        ({ taken } = manifest);
      },
    });
    return { kind: "booted", from, taken };
  } finally {
    place.target.close();
  }
}

/** Of nice: behind whatever else the machine does. */
const BACKGROUND = 15;
