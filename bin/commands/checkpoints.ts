/** `patina checkpoints`: what is kept, and whether it is whole. */
import { errorText, PatinaError } from "#base/errors.ts";
import {
  chooseCheckpoint,
  manifestOf,
  openTarget,
  placeText,
  verifyCheckpoint,
} from "../../replica/driver/checkpoints/checkpoints.ts";
import { checkpointsTarget, clusterIdTarget, type GlobalOptions } from "../targets.ts";
import { alignColumns } from "../text-table.ts";

/** Lists them, newest first; one whose manifest cannot be read is listed with the reason. */
export async function list(
  text: string | undefined,
  options: GlobalOptions & { readonly json?: boolean },
): Promise<void> {
  const { place, config } = checkpointsTarget(text, options);
  const { target } = await openTarget(asFolder(place), config);
  try {
    const found = [];
    for (const kept of await target.list()) {
      const manifest = await manifestOf(target, kept.name).catch((error: unknown) =>
        problemOf(error),
      );
      found.push({ ...kept, ...manifest });
    }
    if (options.json === true) {
      process.stdout.write(`${JSON.stringify(found, null, 2)}\n`);
      return;
    }
    if (found.length === 0) process.stderr.write(`there is no checkpoint in ${target.text}\n`);
    const rows = found.map((one) =>
      "problem" in one
        ? [one.name, sizeText(one.bytes), one.problem]
        : [
            one.name,
            sizeText(one.bytes),
            `database ${sizeText(one.database.bytes)}`,
            `cluster ${one.clusterId}`,
            `of ${one.actor ?? "no actor"}`,
          ],
    );
    process.stdout.write(alignColumns(rows));
  } finally {
    target.close();
  }
}

/** Verifies one or all; ends with an error when any is damaged. */
export async function verify(
  text: string | undefined,
  options: GlobalOptions & { readonly all?: boolean },
): Promise<void> {
  const { place: asked, config } = checkpointsTarget(text, options);
  const place = await openTarget(asked, config);
  const { target } = place;
  try {
    const names =
      options.all === true && place.name === null
        ? (await target.list()).map(({ name }) => name)
        : [await chooseCheckpoint(place, clusterIdTarget(options))];
    let damaged = 0;
    for (const name of names) {
      try {
        const { database } = await verifyCheckpoint(target, name);
        process.stdout.write(
          `${placeText(target, name)}: whole, a database of ${sizeText(database.bytes)}\n`,
        );
      } catch (error) {
        if (names.length === 1) throw error;
        damaged += 1;
        process.stdout.write(`${problemOf(error).problem}\n`);
      }
    }
    if (damaged === 0) return;
    const text = `${damaged} of ${names.length} checkpoints cannot be used`;
    throw new PatinaError("CHECKPOINT_DAMAGED", text);
  } finally {
    target.close();
  }
}

/** Bytes as people read them. */
export function sizeText(bytes: number): string {
  if (bytes < 1024 * 1024) return `${Math.ceil(bytes / 1024)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** What is listed is a folder, whether it is there or not. */
function asFolder(text: string): string {
  return text.endsWith("/") ? text : `${text}/`;
}

function problemOf(error: unknown): { readonly problem: string } {
  if (error instanceof PatinaError) return { problem: errorText(error) };
  throw error;
}
