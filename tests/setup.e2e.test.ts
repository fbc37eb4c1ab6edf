/**
 * The set-up, tried on real files and processes: every test has a cache folder of its own. Builds
 * are replaced by small ones that pass through the same lock, checksum and rename; the real build
 * is what this run stands on.
 */
import { spawn, type ChildProcess } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { once } from "node:events";
import { hostname, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ensureBuilt, proveCrsqlite } from "../bin/setup/crsqlite.js";
import { withLock } from "../bin/setup/lock.js";
import {
  cacheFolder,
  crsqlitePath,
  isVersionAtLeast,
  pinnedNodePath,
  rootFolder,
} from "../bin/setup/paths.js";

const setupFolder = join(rootFolder, "bin", "setup");
let folder: string;
let children: ChildProcess[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "patina-setup-test-"));
  children = [];
});

afterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

describe("the built library", () => {
  test("two set-ups at once build once, and the second says whom it waits for", async () => {
    const first = startBuild("first");
    await first.until("building");
    const second = startBuild("second");
    await second.until(`waiting for process ${first.child.pid}`);
    writeFileSync(join(folder, "go"), "");
    expect(await first.ended()).toEqual({ code: 0, signal: null });
    expect(await second.ended()).toEqual({ code: 0, signal: null });
    expect(readFileSync(libraryPath(), "utf8")).toBe("built by first");
    expect(second.output()).not.toContain("building");
  });

  test("a set-up killed half-way leaves nothing in place, and the next one builds", async () => {
    const killed = startBuild("killed");
    await killed.until("building");
    killed.child.kill("SIGKILL");
    await killed.ended();
    expect(existsSync(libraryPath())).toBe(false);
    expect(readdirSync(dirname(libraryPath())).some((name) => name.startsWith("build-"))).toBe(
      true,
    );

    await ensureBuilt(libraryPath(), writeLibrary("whole"));
    expect(readFileSync(libraryPath(), "utf8")).toBe("whole");
    expect(namesInCache()).toEqual(["crsqlite.so", "crsqlite.so.sha256", "crsqlite.so.stamp"]);
  });

  test("a build that fails leaves nothing behind", async () => {
    const failing = ensureBuilt(libraryPath(), async (aside: string) => {
      writeFileSync(aside, "half");
      throw new Error("no space left");
    });
    await expect(failing).rejects.toThrow("no space left");
    expect(namesInCache()).toEqual([]);
  });

  test("a library that does not match its checksum is built again", async () => {
    await ensureBuilt(libraryPath(), writeLibrary("good"));
    writeFileSync(libraryPath(), "damaged");
    await ensureBuilt(libraryPath(), writeLibrary("good again"));
    expect(readFileSync(libraryPath(), "utf8")).toBe("good again");
  });

  test("a library without a checksum is built again", async () => {
    mkdirSync(dirname(libraryPath()));
    writeFileSync(libraryPath(), "of unknown origin");
    await ensureBuilt(libraryPath(), writeLibrary("good"));
    expect(readFileSync(libraryPath(), "utf8")).toBe("good");
  });

  test("a library whose time alone changed is kept", async () => {
    await ensureBuilt(libraryPath(), writeLibrary("good"));
    utimesSync(libraryPath(), 1, 1);
    await ensureBuilt(libraryPath(), neverBuild);
    expect(readFileSync(`${libraryPath()}.stamp`, "utf8")).toBe("4 1000\n");
  });
});

describe("the lock", () => {
  test("a lock whose owner is gone is taken over", async () => {
    writeLock({ pid: 2 ** 22 + 1, startTime: "1" });
    expect(await withLock(lockPath(), neverWait, async () => "done")).toBe("done");
    expect(existsSync(lockPath())).toBe(false);
  });

  test("a lock whose owner's process id now belongs to another process is taken over", async () => {
    writeLock({ pid: process.pid, startTime: "long ago" });
    expect(await withLock(lockPath(), neverWait, async () => "done")).toBe("done");
  });

  test("a lock file with no owner in it is taken over", async () => {
    writeFileSync(lockPath(), "");
    expect(await withLock(lockPath(), neverWait, async () => "done")).toBe("done");
  });

  test("of many processes that find a stale lock, one at a time goes in", async () => {
    writeLock({ pid: 2 ** 22 + 1, startTime: "1" });
    const script = `
      import { withLock } from ${JSON.stringify(join(setupFolder, "lock.js"))};
      import { mkdirSync, rmdirSync } from "node:fs";
      const inside = ${JSON.stringify(join(folder, "inside"))};
      await withLock(${JSON.stringify(lockPath())}, () => {}, async () => {
        mkdirSync(inside); // Fails when another process is inside.
        await new Promise((wake) => setTimeout(wake, 20));
        rmdirSync(inside);
      });`;
    const contenders = Array.from({ length: 6 }, () => startNode(["-e", script]));
    const endings = await Promise.all(contenders.map((contender) => contender.ended()));
    expect(endings).toEqual(contenders.map(() => ({ code: 0, signal: null })));
    expect(existsSync(lockPath())).toBe(false);
  });
});

describe("cr-sqlite", () => {
  test("the extension merges a change", async () => {
    expect(await proveCrsqlite(nodePath(), crsqlitePath())).toBeNull();
  });

  test("a file that is not cr-sqlite is refused", async () => {
    writeFileSync(join(folder, "crsqlite.so"), "not a library");
    expect(await proveCrsqlite(nodePath(), join(folder, "crsqlite.so"))).toContain("SqliteError");
  });

  test("without compilers one message names the packages to install", async () => {
    const run = startPatina(["--version"], { PATH: emptyFolder() });
    expect(await run.ended()).toEqual({ code: 3, signal: null });
    expect(run.output()).toMatch(/Rust 1\.63 or newer \(cargo\) and a C compiler \(cc\)/);
    expect(run.output()).toContain("apt-get install cargo rustc gcc libc6-dev");
    expect(run.output().trim().split("\n")).toHaveLength(1);
  });

  test("with Rust but no C compiler the message names the C compiler alone", async () => {
    const run = startPatina(["--version"], { PATH: fakeTools({ cargo: "exit 0" }) });
    expect(await run.ended()).toEqual({ code: 3, signal: null });
    expect(run.output()).toContain("needs a C compiler (cc), not found");
    expect(run.output()).toContain("apt-get install gcc libc6-dev)");
  });

  test("a build that fails shows the compiler's words and no stack", async () => {
    const cargo = `[ "$1" = build ] || exit 0; echo "error: this Rust is broken"; exit 101`;
    const run = startPatina(["--version"], { PATH: fakeTools({ cargo, cc: "exit 0" }) });
    expect(await run.ended()).toEqual({ code: 3, signal: null });
    expect(run.output()).toContain("    error: this Rust is broken\n");
    expect(run.output()).toContain("building cr-sqlite failed in cargo");
    expect(run.output()).not.toMatch(/^ +at /m);
  });

  test("a set-up that is told to stop ends its tools and leaves nothing locked", async () => {
    const pidFile = join(folder, "cargo.pid");
    const cargo = `[ "$1" = build ] || exit 0; echo $$ > ${pidFile}.new; exec 9<>${pidFile}.new
      /bin/mv ${pidFile}.new ${pidFile}; exec /bin/sleep 600`;
    const run = startPatina(["--version"], { PATH: fakeTools({ cargo, cc: "exit 0" }) });
    await untilTrue(() => existsSync(pidFile));
    run.child.kill("SIGTERM");
    expect(await run.ended()).toEqual({ code: null, signal: "SIGTERM" });
    const cargoPid = Number(readFileSync(pidFile, "utf8"));
    await untilTrue(() => !isRunning(cargoPid));
    expect(readdirSync(join(folder, "patina")).filter((name) => name.endsWith(".lock"))).toEqual(
      [],
    );
  });

  test("a path given by the user that does not exist is named", async () => {
    const run = startPatina(["--version"], { PATINA_CRSQLITE: join(folder, "nowhere.so") });
    expect(await run.ended()).toEqual({ code: 3, signal: null });
    expect(run.output()).toContain(`PATINA_CRSQLITE names ${join(folder, "nowhere.so")}`);
  });

  test("a library given by the user is tried once and used under any name", async () => {
    const given = givenLibrary();
    const first = startSetup({ PATINA_CRSQLITE: given });
    expect(await first.ended()).toEqual({ code: 0, signal: null });
    expect(first.output()).toContain(`trying ${given}`);
    const second = startSetup({ PATINA_CRSQLITE: given });
    expect(await second.ended()).toEqual({ code: 0, signal: null });
    expect(second.output()).toBe(`${given}\n`);
  });
});

describe("the extension for SQL deadlines", () => {
  test("without a C compiler one message names it and the way out", async () => {
    const given = { PATINA_CRSQLITE: givenLibrary() };
    const run = startPatina(["--version"], { ...given, PATH: emptyFolder() });
    expect(await run.ended()).toEqual({ code: 3, signal: null });
    expect(run.output()).toContain("building the extension for SQL deadlines needs a C compiler");
    expect(run.output()).toContain("set PATINA_SQL_DEADLINE to one built elsewhere");
  });

  test("a compiler that makes no library is told, with its own words", async () => {
    const given = { PATINA_CRSQLITE: givenLibrary() };
    const cc = 'echo "error: no headers"; exit 1';
    const run = startPatina(["--version"], { ...given, PATH: fakeTools({ cc }) });
    expect(await run.ended()).toEqual({ code: 3, signal: null });
    expect(run.output()).toContain("    error: no headers\n");
    expect(run.output()).toContain("building the extension for SQL deadlines failed in cc");
  });

  test("a path given by the user that does not exist is named", async () => {
    const given = { PATINA_CRSQLITE: givenLibrary(), PATINA_SQL_DEADLINE: "/nowhere.so" };
    const run = startPatina(["--version"], given);
    expect(await run.ended()).toEqual({ code: 3, signal: null });
    expect(run.output()).toContain("PATINA_SQL_DEADLINE names /nowhere.so, which does not exist");
  });
});

describe("npm packages", () => {
  test("when everything is in place the set-up prints nothing", async () => {
    const env = { XDG_CACHE_HOME: dirname(cacheFolder()), PATINA_CRSQLITE: undefined };
    await startSetup(env).ended(); // So that this holds for a first run, too.
    const run = startSetup(env);
    expect(await run.ended()).toEqual({ code: 0, signal: null });
    expect(run.output().trim().split("\n")).toHaveLength(1); // The path, by the test's own script.
  });

  test("without npm the message says so", async () => {
    const run = startPackages(writeProject(), { PATH: emptyFolder() });
    await run.ended();
    expect(run.output()).toContain("npm is missing");
  });

  test("packages that npm itself recorded as complete are taken over", async () => {
    const project = writeProject();
    writePackages(project);
    const run = startPackages(project, { PATH: emptyFolder() });
    expect(await run.ended()).toEqual({ code: 0, signal: null });
    expect(existsSync(join(project, "node_modules", ".patina-setup.json"))).toBe(true);
  });

  test("an installation that lacks a package is done again", async () => {
    const project = writeProject();
    writePackages(project);
    rmSync(join(project, "node_modules", "a"), { recursive: true });
    const npm = `echo "npm $1" > ${join(folder, "npm.log")}; exit 0`;
    const run = startPackages(project, { PATH: fakeTools({ npm }) });
    expect(await run.ended()).toEqual({ code: 0, signal: null });
    expect(readFileSync(join(folder, "npm.log"), "utf8")).toBe("npm ci\n");
  });

  test("a changed lock file leads to a new installation", async () => {
    const project = writeProject();
    writePackages(project);
    await startPackages(project, { PATH: emptyFolder() }).ended();
    writeFileSync(join(project, "package-lock.json"), lockText("2.0.0"));
    const run = startPackages(project, { PATH: emptyFolder() });
    await run.ended();
    expect(run.output()).toContain("npm is missing");
  });
});

describe("the launcher", () => {
  test("the exit code of what it starts is its own", async () => {
    const run = startForeground("process.exit(7)");
    expect(await run.ended()).toEqual({ code: 7, signal: null });
  });

  test("it dies of the signal that its child died of", async () => {
    const run = startForeground(`process.kill(process.pid, "SIGTERM")`);
    expect(await run.ended()).toEqual({ code: null, signal: "SIGTERM" });
  });

  test.each(["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2"] as const)(
    "%s is passed on",
    async (name) => {
      const run = startForeground(
        `process.on("${name}", () => process.exit(9)); setInterval(() => {}, 1e6); console.log("ready")`,
      );
      await run.until("ready");
      run.child.kill(name);
      expect(await run.ended()).toEqual({ code: 9, signal: null });
    },
  );

  test("systemd's sockets reach the entry, named as its own", async () => {
    const entry = `
      const isMine = process.env.LISTEN_PID === String(process.pid);
      console.log(isMine, require("fs").readFileSync(3, "utf8"));`;
    const script = `
      import { startEntry } from ${JSON.stringify(join(setupFolder, "launch.js"))};
      const env = { ...process.env, LISTEN_PID: String(process.pid), LISTEN_FDS: "1" };
      await startEntry(process.execPath, ["-e", ${JSON.stringify(entry)}], env);`;
    writeFileSync(join(folder, "socket"), "what systemd passed");
    const run = startShell(`exec ${nodePath()} -e '${script.replaceAll("'", "'\\''")}' 3<socket`);
    await run.ended();
    expect(run.output()).toBe("true what systemd passed\n");
  });

  test("an unknown developer command is a usage error", async () => {
    const env = { XDG_CACHE_HOME: dirname(cacheFolder()) };
    const run = startPatina(["dev", "nothing"], env);
    expect(await run.ended()).toEqual({ code: 2, signal: null });
    expect(run.output()).toContain("usage: patina dev");
  });

  test.each([
    ["26.10.0", true],
    ["26.9.9", false],
    ["27.0.0-nightly", true],
    ["20.20.2", false],
  ])("Node %s is new enough: %s", (version, isEnough) => {
    expect(isVersionAtLeast(version, "26.10.0")).toBe(isEnough);
  });
});

/** A cr-sqlite as if the user had built it. */
function givenLibrary(): string {
  const given = join(folder, "mine.so");
  symlinkSync(crsqlitePath(), given);
  return given;
}

interface Run {
  child: ChildProcess;
  output(): string;
  until(text: string): Promise<void>;
  ended(): Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

type Variables = Record<string, string | undefined>;

function start(file: string, args: string[], variables: Variables = {}): Run {
  const env = {
    ...process.env,
    XDG_CACHE_HOME: folder,
    PATINA_CRSQLITE: undefined,
    PATINA_SQL_DEADLINE: undefined,
    ...variables,
  };
  const child = spawn(file, args, { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  }
  const closed = once(child, "close");
  return {
    child,
    output: () => output,
    until: (text) => untilTrue(() => output.includes(text)),
    ended: async () => {
      const [code, signal] = (await closed) as [number | null, NodeJS.Signals | null];
      return { code, signal };
    },
  };
}

function startNode(args: string[], variables?: Variables): Run {
  return start(nodePath(), ["--input-type=module", ...args], variables);
}

function startShell(script: string): Run {
  return start("/bin/sh", ["-c", script]);
}

function startPatina(args: string[], variables: Variables): Run {
  return start(nodePath(), [join(rootFolder, "bin", "patina"), ...args], variables);
}

/** Runs the whole set-up and prints where the extension is. */
function startSetup(variables: Variables): Run {
  const module = JSON.stringify(join(setupFolder, "setup.js"));
  const script = `console.log((await (await import(${module})).ensureSetup()).crsqlite)`;
  return startNode(["-e", script], variables);
}

function startPackages(root: string, variables: Variables): Run {
  const module = JSON.stringify(join(setupFolder, "packages.js"));
  const options = JSON.stringify({ root, isDev: false });
  const script = `await (await import(${module})).ensurePackages(${options})`;
  return startNode(["-e", script], variables);
}

/** A build that writes half of the library, then waits for the file `go`. */
function startBuild(name: string): Run {
  const script = `
    import { existsSync, writeFileSync } from "node:fs";
    import { ensureBuilt } from ${JSON.stringify(join(setupFolder, "crsqlite.js"))};
    await ensureBuilt(${JSON.stringify(libraryPath())}, async (aside) => {
      writeFileSync(aside, "built by");
      console.log("building");
      while (!existsSync(${JSON.stringify(join(folder, "go"))})) {
        await new Promise((wake) => setTimeout(wake, 10));
      }
      writeFileSync(aside, "built by ${name}");
    });`;
  return startNode(["-e", script]);
}

function startForeground(childScript: string): Run {
  const script = `
    import { endAs, runForeground } from ${JSON.stringify(join(setupFolder, "child.js"))};
    endAs(await runForeground(process.execPath, ["-e", ${JSON.stringify(childScript)}]));`;
  return startNode(["-e", script]);
}

function writeLibrary(text: string) {
  return async (aside: string) => writeFileSync(aside, text);
}

async function neverBuild(): Promise<void> {
  throw new Error("built without need");
}

function neverWait(): void {
  throw new Error("waited without need");
}

function libraryPath(): string {
  return join(folder, "cache", "crsqlite.so");
}

function namesInCache(): string[] {
  return readdirSync(dirname(libraryPath())).toSorted();
}

function lockPath(): string {
  return join(folder, "test.lock");
}

function writeLock(owner: { pid: number; startTime: string }): void {
  writeFileSync(lockPath(), JSON.stringify({ ...owner, host: hostname() }));
}

function emptyFolder(): string {
  const path = join(folder, "empty");
  mkdirSync(path, { recursive: true });
  return path;
}

/** A folder for PATH with shell scripts in place of tools, and nothing else. */
function fakeTools(scriptByName: Record<string, string>): string {
  const path = join(folder, "tools");
  mkdirSync(path);
  for (const [name, script] of Object.entries(scriptByName)) {
    writeFileSync(join(path, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  return path;
}

function lockText(version: string): string {
  return JSON.stringify({ packages: { "": {}, "node_modules/a": { version } } });
}

/** A project with one dependency, not installed. */
function writeProject(): string {
  const project = join(folder, "project");
  mkdirSync(join(project, "node_modules"), { recursive: true });
  writeFileSync(join(project, "package-lock.json"), lockText("1.0.0"));
  return project;
}

/** Installs the dependency as npm does: the package, then npm's record of it. */
function writePackages(project: string): void {
  mkdirSync(join(project, "node_modules", "a"));
  writeFileSync(join(project, "node_modules", "a", "package.json"), `{ "version": "1.0.0" }`);
  writeFileSync(join(project, "node_modules", ".package-lock.json"), lockText("1.0.0"));
}

function nodePath(): string {
  return pinnedNodePath() ?? process.execPath;
}

function isRunning(pid: number): boolean {
  try {
    // A zombie still answers to signals.
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return !stat.slice(stat.lastIndexOf(")")).startsWith(") Z");
  } catch {
    return false;
  }
}

/** Waits without a limit of its own; the test's is the limit. */
async function untilTrue(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((wake) => setTimeout(wake, 10));
}
