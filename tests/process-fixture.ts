/** For end-to-end tests: the command line as processes. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LIMIT_MS } from "./asking-fixture.ts";
import { ROOT } from "./source-tree.ts";

/** How a process ended, and what it said. */
export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process of the command line. */
export interface PatinaProcess {
  readonly child: ChildProcess;
  readonly ending: Promise<Ending>;
  readonly hasEnded: boolean;
  /** SIGTERM, then SIGKILL to its whole group; resolves when it is gone. */
  end(): Promise<void>;
}

/** Starts `patina ARGUMENTS` on the Node that runs the test. */
export function startPatina(
  args: readonly string[],
  options: { env?: Readonly<Record<string, string>>; stdin?: string } = {},
): PatinaProcess {
  const child = spawn(process.execPath, [join(ROOT, "bin/cli.ts"), ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, ...options.env },
  });
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.stdin ?? "");
  const output = { stdout: "", stderr: "" };
  child.stdout.on("data", (bytes: Buffer) => (output.stdout += bytes.toString()));
  child.stderr.on("data", (bytes: Buffer) => (output.stderr += bytes.toString()));
  const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null;
  const ending = once(child, "close").then(([code, signal]): Ending => {
    return { code: code as number | null, signal: signal as NodeJS.Signals | null, ...output };
  });
  return {
    child,
    ending,
    get hasEnded() {
      return hasEnded();
    },
    async end() {
      if (hasEnded()) return;
      const edges = childrenOf(child.pid);
      child.kill("SIGTERM");
      const hard = setTimeout(() => {
        for (const pid of edges) killQuietly(pid);
        child.kill("SIGKILL");
      }, END_LIMIT_MS);
      await ending;
      clearTimeout(hard);
    },
  };
}

/** Whether file systems can be mounted: needs root, and a kernel that lets it. */
export function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), "patina-mount-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", folder], { stdio: "ignore" });
    execFileSync("umount", [folder], { stdio: "ignore" });
    return true;
  } catch (error) {
    if (error instanceof Error) return false;
    throw error;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs `patina ARGUMENTS` to its end. */
export async function runPatina(
  args: readonly string[],
  options: { env?: Readonly<Record<string, string>>; stdin?: string } = {},
): Promise<Ending> {
  const running = startPatina(args, options);
  const limit = setTimeout(() => void running.end(), LIMIT_MS);
  const ending = await running.ending;
  clearTimeout(limit);
  return ending;
}

function childrenOf(pid: number | undefined): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
    return text === "" ? [] : text.split(" ").map(Number);
  } catch (error) {
    // It is gone already, or this system has no /proc.
    if (error instanceof Error) return [];
    throw error;
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

const END_LIMIT_MS = 60_000;
