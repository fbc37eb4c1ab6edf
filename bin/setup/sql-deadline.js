// @ts-check
/**
 * Provides the extension that interrupts SQL at its deadline (`sql-deadline.c`), as cr-sqlite is
 * provided: a path the user gives, a copy already built, or a build. It needs a C compiler and
 * SQLite's headers, which better-sqlite3's package holds.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { runCommand } from "./command.js";
import { findCompilers } from "./compilers.js";
import { ensureBuilt } from "./crsqlite.js";
import { builtSqlDeadlinePath, rootFolder } from "./paths.js";
import { SetupError, runStep } from "./report.js";

/**
 * Makes sure of the extension and answers its absolute path. Cost when in place: a few stats and
 * small files. Throws SetupError.
 * @param {{ root: string, nodePath: string }} options nodePath: the pinned Node.
 */
export async function ensureSqlDeadline({ root, nodePath }) {
  const given = process.env["PATINA_SQL_DEADLINE"];
  const built = builtSqlDeadlinePath();
  if (given && resolve(given) !== built) {
    if (existsSync(given)) return resolve(given);
    throw new SetupError(`PATINA_SQL_DEADLINE names ${given}, which does not exist.`);
  }
  await ensureBuilt(built, async (output) => {
    const { cc } = await findCompilers(["cc"], PURPOSE);
    await runStep("building the extension for SQL deadlines", () => build({ root, cc, output }));
    await prove(nodePath, output);
  });
  return built;
}

/** @param {{ root: string, cc: string, output: string }} options */
async function build({ root, cc, output }) {
  const headers = join(root, "node_modules", "better-sqlite3", "deps", "sqlite3");
  const source = join(rootFolder, "bin", "setup", "sql-deadline.c");
  const flags = ["-O2", "-std=c99", "-D_GNU_SOURCE", "-fPIC", "-shared", "-fvisibility=hidden"];
  const built = await runCommand(cc, [...flags, `-I${headers}`, source, "-o", output, "-lpthread"]);
  if (built.isOk) return;
  throw new SetupError(
    "building the extension for SQL deadlines failed in cc (output above). The C library's headers" +
      ` are needed too: on Debian \`apt-get install gcc libc6-dev\`; or ${PURPOSE.wayOut}.`,
    { output: built.output },
  );
}

/**
 * A query without end, which only an interrupt ends.
 * @param {string} nodePath
 * @param {string} library
 */
async function prove(nodePath, library) {
  const script = `
    const database = new (require("better-sqlite3"))(":memory:").loadExtension(process.argv[1]);
    database.prepare("SELECT patina_deadline(1)").get();
    const endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT 1 FROM c) SELECT sum(x) FROM c";
    try { database.prepare(endless).get(); } catch (error) { console.log(error.code); }`;
  const tried = await runCommand(nodePath, ["-e", script, library], {
    cwd: rootFolder,
    timeoutMs: PROOF_MS_MAX,
  });
  if (tried.isOk && tried.stdout === "SQLITE_INTERRUPT\n") return;
  throw new SetupError(
    `the extension for SQL deadlines that was built here interrupts nothing (output above); ${PURPOSE.wayOut}.`,
    { output: tried.output },
  );
}

const PURPOSE = {
  what: "the extension for SQL deadlines",
  wayOut: "set PATINA_SQL_DEADLINE to one built elsewhere from bin/setup/sql-deadline.c",
};

/** Far more than the tenth of a second it takes; one that does not interrupt must not hang us. */
const PROOF_MS_MAX = 30_000;
