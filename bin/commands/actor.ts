/** `patina actor init`: who a replica will be, before it has started. */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { initActor } from "../../replica/driver/store/database.ts";
import { crsqlitePath, sqlDeadlinePath } from "../setup/paths.js";
import { databaseTarget, type GlobalOptions } from "../targets.ts";

/** Prints the actor id of the database, which is made if it is not there. Safe to repeat. */
export function init(options: GlobalOptions): void {
  const path = databaseTarget(options);
  mkdirSync(dirname(path), { recursive: true });
  const extensionPath = crsqlitePath();
  const deadlinePath = sqlDeadlinePath();
  process.stdout.write(`${initActor({ path, extensionPath, deadlinePath })}\n`);
}
