// @ts-check
/**
 * Where things are: the project's root, the user's cache folder, the pinned Node and the cr-sqlite
 * extension. Only reads small files; starts nothing, creates nothing, so it is safe to call from a
 * test's global set-up or from any other code.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of package.json. */
export const rootFolder = resolve(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** The oldest Node that runs the TypeScript entry; the npm packages node-linux-* carry this one. */
export const PINNED_NODE = "26.10.0";

/**
 * The user's cache folder for this program: $XDG_CACHE_HOME/patina, else ~/Library/Caches/patina on
 * macOS and ~/.cache/patina elsewhere. It need not exist.
 * @param {NodeJS.ProcessEnv} [env]
 */
export function cacheFolder(env = process.env) {
  const base = env["XDG_CACHE_HOME"];
  if (base) return join(resolve(base), "patina");
  const home = env["HOME"] || homedir();
  return process.platform === "darwin"
    ? join(home, "Library", "Caches", "patina")
    : join(home, ".cache", "patina");
}

/**
 * Where Node keeps compiled code between starts (NODE_COMPILE_CACHE). It need not exist.
 * @param {NodeJS.ProcessEnv} [env]
 */
export function compileCacheFolder(env = process.env) {
  return env["NODE_COMPILE_CACHE"] ?? join(cacheFolder(env), "compile-cache");
}

/**
 * The Node to run TypeScript on: the one from the npm package for this platform, else the running
 * one when it is new enough, else null.
 * @param {string} [root]
 * @returns {string | null}
 */
export function pinnedNodePath(root = rootFolder) {
  const packaged = packagedNodePath(root);
  if (existsSync(packaged)) return packaged;
  return isVersionAtLeast(process.versions.node, PINNED_NODE) ? process.execPath : null;
}

/** Where the npm package of this platform has its Node, present or not. @param {string} root */
export function packagedNodePath(root) {
  const name = `node-${process.platform}-${process.arch}`;
  return join(root, "node_modules", name, "bin", "node");
}

/**
 * The cr-sqlite extension to load, as an absolute path: PATINA_CRSQLITE when set (bin/patina sets it
 * for the processes it starts), else the copy the set-up builds. The file need not exist.
 * @param {NodeJS.ProcessEnv} [env]
 */
export function crsqlitePath(env = process.env) {
  const given = env["PATINA_CRSQLITE"];
  return given ? resolve(given) : builtCrsqlitePath(env);
}

/**
 * The extension that interrupts SQL at its deadline, in the same way: PATINA_SQL_DEADLINE when set.
 * @param {NodeJS.ProcessEnv} [env]
 */
export function sqlDeadlinePath(env = process.env) {
  const given = env["PATINA_SQL_DEADLINE"];
  return given ? resolve(given) : builtSqlDeadlinePath(env);
}

/**
 * Where the set-up puts its own build. The name carries the version of cr-sqlite, the platform, and
 * a hash of the recipe, so that a changed recipe never meets an old library.
 * @param {NodeJS.ProcessEnv} [env]
 */
export function builtCrsqlitePath(env = process.env) {
  const { dependencies } = JSON.parse(readFileSync(join(rootFolder, "package.json"), "utf8"));
  const version = dependencies["@vlcn.io/crsqlite"];
  return libraryPath({ name: `crsqlite-${version}`, recipe: ["crsqlite-recipe.js"], env });
}

/** The same for the extension of deadlines. @param {NodeJS.ProcessEnv} [env] */
export function builtSqlDeadlinePath(env = process.env) {
  return libraryPath({ name: "sql-deadline", recipe: ["sql-deadline.c", "sql-deadline.js"], env });
}

/** @param {{ name: string, recipe: readonly string[], env: NodeJS.ProcessEnv }} options */
function libraryPath({ name, recipe, env }) {
  const hash = createHash("sha256");
  for (const file of recipe) hash.update(readFileSync(join(rootFolder, "bin", "setup", file)));
  const recipeHash = hash.digest("hex").slice(0, 12);
  const suffix = process.platform === "darwin" ? "dylib" : "so";
  const file = `${name}-${process.platform}-${process.arch}-${recipeHash}.${suffix}`;
  return join(cacheFolder(env), file);
}

/**
 * True when `version` is `least` or newer, by its three numbers.
 * @param {string} version
 * @param {string} least
 */
export function isVersionAtLeast(version, least) {
  const numbers = (/** @type {string} */ text) => text.split(".").map((part) => parseInt(part, 10));
  const [have, need] = [numbers(version), numbers(least)];
  for (let i = 0; i < 3; i += 1) {
    const difference = (have[i] ?? 0) - (need[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
