// @ts-check
/** The compilers that the extensions are built with: found on PATH, or installed on Debian as root. */
import { findOnPath, runCommand } from "./command.js";
import { SetupError, runStep } from "./report.js";

/**
 * Absolute paths of the compilers; on Debian as root, what is missing is installed first. Throws
 * SetupError, which names what is missing, how to install it, and `wayOut`.
 * @template {readonly ToolName[]} Names
 * @param {Names} names
 * @param {{ what: string, wayOut: string }} purpose what: the library that is built.
 * @returns {Promise<Record<Names[number], string>>}
 */
export async function findCompilers(names, purpose) {
  const missing = () => names.filter((name) => TOOLS[name].find() === null);
  const packages = missing().flatMap((name) => TOOLS[name].debian);
  const aptGet = findOnPath("apt-get");
  if (packages.length > 0 && aptGet !== null && process.getuid?.() === 0) {
    await runStep(`installing ${packages.join(", ")} with apt-get`, () =>
      aptInstall(aptGet, packages),
    );
  }
  const lacking = missing();
  if (lacking.length > 0) throw missingTools(lacking, purpose);
  const found = names.map((name) => [name, TOOLS[name].find()]);
  return /** @type {Record<Names[number], string>} */ (Object.fromEntries(found));
}

/** @typedef {"cargo" | "cc"} ToolName */

const TOOLS = {
  cargo: {
    what: "Rust 1.63 or newer (cargo)",
    debian: ["cargo", "rustc"],
    mac: "brew install rust",
    find: () => findOnPath("cargo"),
  },
  cc: {
    what: "a C compiler (cc)",
    debian: ["gcc", "libc6-dev"],
    mac: "xcode-select --install",
    find: () => findOnPath("cc") ?? findOnPath("gcc") ?? findOnPath("clang"),
  },
};

/**
 * @param {string} aptGet
 * @param {readonly string[]} packages
 */
async function aptInstall(aptGet, packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const args = ["install", "-y", "--no-install-recommends", ...packages];
  let installed = await runCommand(aptGet, args, { env });
  if (!installed.isOk) {
    // A fresh container has no package lists.
    await runCommand(aptGet, ["update"], { env });
    installed = await runCommand(aptGet, args, { env });
  }
  if (installed.isOk) return;
  throw new SetupError(`apt-get could not install ${packages.join(" ")} (output above).`, {
    output: installed.output,
  });
}

/**
 * @param {readonly ToolName[]} names
 * @param {{ what: string, wayOut: string }} purpose
 */
function missingTools(names, purpose) {
  const tools = names.map((name) => TOOLS[name]);
  const what = tools.map((tool) => tool.what).join(" and ");
  const hint =
    process.platform === "darwin"
      ? tools.map((tool) => tool.mac).join("; ")
      : `on Debian or Ubuntu: apt-get install ${tools.flatMap((tool) => tool.debian).join(" ")}`;
  return new SetupError(
    `building ${purpose.what} needs ${what}, not found on PATH. Install what is missing (${hint}),` +
      ` or ${purpose.wayOut}.`,
  );
}
