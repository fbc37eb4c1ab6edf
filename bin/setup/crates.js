// @ts-check
/**
 * Provides the Rust crates that cr-sqlite needs (bytes, num-traits, num-derive and theirs): from the
 * Rust registry where it is reached, else from Debian's librust-*-dev packages, which hold crate
 * sources. Those are fetched and unpacked into the build folder, so no root is needed. Afterwards
 * cargo builds without the network.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findOnPath, runCommand } from "./command.js";
import { isVersionAtLeast } from "./paths.js";
import { SetupError } from "./report.js";

/**
 * Makes `cargo build --offline` of rs/bundle_static under `folder` possible.
 * @param {{ folder: string, cargo: string }} options folder: prepared sources.
 */
export async function provideCrates({ folder, cargo }) {
  const crate = join(folder, "rs", "bundle_static");
  const aptGet = findOnPath("apt-get");
  const { stdout } = await runCommand(cargo, ["--version"]);
  const version = /(\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? "0.0.0";
  // Before 1.68 cargo clones the registry's whole index, which takes longer than everything else.
  if (aptGet === null || isVersionAtLeast(version, "1.68.0")) {
    const env = { ...process.env, CARGO_NET_RETRY: "1", CARGO_HTTP_TIMEOUT: "10" };
    const fetched = await runCommand(cargo, ["fetch"], {
      cwd: crate,
      env,
      timeoutMs: FETCH_MS_MAX,
    });
    if (fetched.isOk) return;
    if (aptGet === null) {
      throw new SetupError(
        "cargo cannot reach the Rust registry (output above), which cr-sqlite's build needs for the" +
          " crates bytes, num-traits and num-derive. Set PATINA_CRSQLITE to a library built elsewhere.",
        { output: fetched.output },
      );
    }
  }
  await provideDebianCrates(folder, crate);
}

/**
 * @param {string} folder
 * @param {string} crate
 */
async function provideDebianCrates(folder, crate) {
  const registry = join(folder, "crates");
  const debs = join(folder, "debs");
  mkdirSync(registry);
  mkdirSync(debs);
  const missing = await listMissingPackages();
  const fetched = await runCommand("apt-get", ["download", ...missing], { cwd: debs });
  if (missing.length > 0 && !fetched.isOk) throw crateFailure(fetched.output);
  for (const deb of readdirSync(debs)) {
    const unpacked = await runCommand("dpkg", ["-x", join(debs, deb), join(folder, "debian")]);
    if (!unpacked.isOk) throw crateFailure(unpacked.output);
  }
  for (const source of [INSTALLED_REGISTRY, join(folder, "debian", INSTALLED_REGISTRY)]) {
    if (existsSync(source)) cpSync(source, registry, { recursive: true, dereference: true });
  }
  mkdirSync(join(crate, ".cargo"), { recursive: true });
  writeFileSync(
    join(crate, ".cargo", "config.toml"),
    `[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = ${JSON.stringify(registry)}\n`,
  );
  // It pins the registry's versions; Debian has others.
  rmSync(join(crate, "Cargo.lock"), { force: true });
}

/** The Debian packages still to fetch; those installed are left out. @returns {Promise<string[]>} */
async function listMissingPackages() {
  const args = ["-s", "-o", "Debug::NoLocking=1", "install", "--no-install-recommends"];
  const planned = await runCommand("apt-get", [...args, ...CRATE_PACKAGES]);
  if (!planned.isOk) throw crateFailure(planned.output);
  return [...planned.stdout.matchAll(/^Inst (librust-\S+)/gm)].map((match) => match[1] ?? "");
}

/** @param {string} output */
function crateFailure(output) {
  return new SetupError(
    "the Rust crates for cr-sqlite are neither in reach at the Rust registry nor as Debian packages" +
      ` (output above). Try \`apt-get update && apt-get install ${CRATE_PACKAGES.join(" ")}\`,` +
      " or set PATINA_CRSQLITE to a library built elsewhere.",
    { output },
  );
}

const CRATE_PACKAGES = ["librust-bytes-dev", "librust-num-traits-dev", "librust-num-derive-dev"];

/** Where Debian puts crate sources. */
const INSTALLED_REGISTRY = "/usr/share/cargo/registry";

/** A sparse registry answers in seconds; an unreachable one must not use up the set-up's time. */
const FETCH_MS_MAX = 40_000;
