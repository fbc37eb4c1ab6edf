// @ts-check
/**
 * Fills Node's compile cache: loads what `patina run` and the other commands load, and ends. Run on
 * the pinned Node at the first set-up, because an edge that is bounced is killed before it could
 * write the cache itself, and with the cache it is back in half the time.
 *
 * Only modules that do nothing when loaded are named here, never the entry of a thread.
 */
import { readdirSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { rootFolder } from "./paths.js";

const commands = readdirSync(join(rootFolder, "bin", "commands"))
  .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
  .map((name) => join("bin", "commands", name));

for (const path of [...commands, "proxy/app.ts", "replica/replica.ts", "watchdog/watchdog.ts"]) {
  // One that does not load is for the command itself to report.
  await import(pathToFileURL(join(rootFolder, path)).href).catch(() => {});
}
flushCompileCache();
process.exit(0);
