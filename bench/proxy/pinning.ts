/**
 * Which core does what: the proxy under measurement has one to itself; load, upstream and this
 * process share another. On a machine with one core, or without taskset, nothing is pinned.
 */
import { spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { has } from "./installed.ts";

/** Whether processes are pinned at all. */
export const isPinned = availableParallelism() > 1 && has("taskset", "-V");
/** Enough cores for two threads of a proxy beside load and upstream. */
export const hasCoresForTwoThreads = isPinned && availableParallelism() >= 4;

/** Cores of the proxies, as taskset lists them. */
export const PROXY_CORE = "0";
/** Cores of a proxy with two threads: the one core, unless there are enough. */
export const TWO_THREAD_CORES = hasCoresForTwoThreads ? "0,2" : PROXY_CORE;
/** Core of load and upstream. */
export const LOAD_CORE = "1";

/** The words in front of a command that pin it. */
export function pinnedTo(cores: string): string[] {
  return isPinned ? ["taskset", "-c", cores] : [];
}

/** Pins this process with all its threads to the load's core. */
export function pinSelf(): void {
  if (!isPinned) return;
  const args = ["-a", "-c", "-p", LOAD_CORE, String(process.pid)];
  const { status, stderr } = spawnSync("taskset", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`taskset failed: ${stderr}`);
}
