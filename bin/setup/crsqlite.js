// @ts-check
/**
 * Provides the cr-sqlite extension, first of: a path the user gives, a copy already built, a build
 * from the sources inside the npm package. A build is tried out before it is renamed into place,
 * and has a checksum beside it (`<library>.sha256`, readable by `sha256sum -c`).
 *
 * Reading half a megabyte at every start is not worth it: `<library>.stamp` records the size and
 * time of the file whose checksum was last found right, and only a file that differs is read again.
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { runCommand } from "./command.js";
import { findCompilers } from "./compilers.js";
import { provideCrates } from "./crates.js";
import { buildExtension, prepareSources } from "./crsqlite-recipe.js";
import { withLock } from "./lock.js";
import { sayWaiting } from "./packages.js";
import { builtCrsqlitePath, cacheFolder, rootFolder } from "./paths.js";
import { SetupError, runStep, say } from "./report.js";

/**
 * Makes sure of the extension and answers its absolute path. Cost when in place: a few stats and
 * small files.
 * @param {{ root: string, nodePath: string }} options nodePath: the pinned Node.
 */
export async function ensureCrsqlite({ root, nodePath }) {
  const built = builtCrsqlitePath();
  const given = process.env["PATINA_CRSQLITE"];
  if (given && resolve(given) !== built) return await checkGiven(resolve(given), nodePath);
  await ensureBuilt(built, (aside) => buildHere({ root, nodePath, output: aside }));
  return built;
}

/**
 * Makes sure of a built library at `library`: checks the one that is there, else has `build` make
 * one beside it and renames it into place. Two processes at once build once; one that dies on the
 * way leaves nothing in place.
 * @param {string} library
 * @param {(aside: string) => Promise<void>} build Writes the library to the path it is given.
 */
export async function ensureBuilt(library, build) {
  if (isIntact(library)) return;
  await withLock(`${library}.lock`, sayWaiting, async () => {
    if (isIntact(library)) return;
    if (existsSync(library)) say(`${library} does not match its checksum; building it again`);
    const work = makeWorkFolder(dirname(library));
    try {
      const aside = join(work, basename(library));
      await build(aside);
      // The checksum first: should the library's rename not happen, the two do not fit, and the
      // next set-up builds again.
      writeWhole(`${library}.sha256`, `${sha256OfFile(aside)}  ${basename(library)}\n`);
      renameSync(aside, library);
      writeStamp(library, `${library}.stamp`);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  });
}

/**
 * Runs the proof on a library; null when it works, else what went wrong.
 * @param {string} nodePath
 * @param {string} library
 */
export async function proveCrsqlite(nodePath, library) {
  const proof = join(rootFolder, "bin", "setup", "crsqlite-proof.js");
  const tried = await runCommand(nodePath, [proof, library], { timeoutMs: PROOF_MS_MAX });
  return tried.isOk && tried.stdout === "merged\n"
    ? null
    : tried.output || "it ended without a word";
}

/**
 * A path the user gave is tried out once per file, not at every start.
 * @param {string} given
 * @param {string} nodePath
 */
async function checkGiven(given, nodePath) {
  const library = [given, `${given}.so`, `${given}.dylib`].find((path) => existsSync(path));
  if (library === undefined) {
    throw new SetupError(`PATINA_CRSQLITE names ${given}, which does not exist.`);
  }
  const stamp = join(
    cacheFolder(),
    `given-${createHash("sha256").update(library).digest("hex").slice(0, 12)}.stamp`,
  );
  if (readText(stamp) === stampOf(library)) return library;
  await runStep(`trying ${library}`, async () => {
    const fault = await proveCrsqlite(nodePath, library);
    if (fault === null) return;
    throw new SetupError(
      `the library named by PATINA_CRSQLITE does not work as cr-sqlite (output above): ${library}`,
      { output: fault },
    );
  });
  try {
    mkdirSync(dirname(stamp), { recursive: true });
    writeStamp(library, stamp);
  } catch {
    // Without a cache folder it is tried at every start.
  }
  return library;
}

/**
 * @param {{ root: string, nodePath: string, output: string }} options
 */
async function buildHere({ root, nodePath, output }) {
  const { cargo, cc } = await findCompilers(["cargo", "cc"], {
    what: "cr-sqlite",
    wayOut: "set PATINA_CRSQLITE to a crsqlite library built elsewhere",
  });
  const folder = join(dirname(output), "sources");
  const packageFolder = join(root, "node_modules", "@vlcn.io", "crsqlite");
  const { version } = JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8"));
  await runStep("fetching cr-sqlite's Rust crates", async () => {
    prepareSources({ packageFolder, target: folder });
    await provideCrates({ folder, cargo });
  });
  await runStep(`building cr-sqlite ${version}`, () =>
    buildExtension({ folder, output, cargo, cc, version }),
  );
  await runStep("trying cr-sqlite", async () => {
    const fault = await proveCrsqlite(nodePath, output);
    if (fault === null) return;
    throw new SetupError(
      "the cr-sqlite built here does not merge a change (output above). Set PATINA_CRSQLITE to a" +
        " library built elsewhere.",
      { output: fault },
    );
  });
}

/** True when the library is there and is what was built. @param {string} library */
function isIntact(library) {
  const stamp = stampOf(library);
  if (stamp === null) return false;
  if (readText(`${library}.stamp`) === stamp) return true;
  const expected = readText(`${library}.sha256`)?.split(" ")[0];
  if (expected !== sha256OfFile(library)) return false;
  try {
    writeStamp(library, `${library}.stamp`);
  } catch {
    // In a cache we may only read, the checksum is taken at every start.
  }
  return true;
}

/** Size and time of a file as one line, or null without the file. @param {string} path */
function stampOf(path) {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats === undefined ? null : `${stats.size} ${stats.mtimeMs}\n`;
}

/** @param {string} library @param {string} stamp */
function writeStamp(library, stamp) {
  writeWhole(stamp, stampOf(library) ?? "");
}

/** @param {string} path @param {string} text */
function writeWhole(path, text) {
  const aside = `${path}.${process.pid}`;
  writeFileSync(aside, text);
  renameSync(aside, path);
}

/** @param {string} path */
function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

/** @param {string} path */
function sha256OfFile(path) {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/**
 * A folder for one build, on the same file system as its result. Only called under the lock, so any
 * other such folder was left by a process that was killed.
 * @param {string} folder
 */
function makeWorkFolder(folder) {
  for (const name of readdirSync(folder)) {
    if (name.startsWith(WORK)) rmSync(join(folder, name), { recursive: true, force: true });
  }
  return mkdtempSync(join(folder, WORK));
}

const WORK = "build-";

/** Far more than the second it takes; a library that hangs must not hang the set-up. */
const PROOF_MS_MAX = 30_000;
