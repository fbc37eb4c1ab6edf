/**
 * A rival as the kernel sees it: a process and all that it has started. CPU time and memory are
 * the tree's, and a tree that is not measured is stopped, so that its timers do not take part.
 */
import { existsSync, readFileSync } from "node:fs";
import { childrenOf, cpuTimeMs } from "../process-figures.ts";

/** Pids of a process and of all below it, itself first; none when it has ended. */
export function treeOf(pid: number): number[] {
  if (!existsSync(`/proc/${pid}`)) return [];
  return [pid, ...childrenOf(pid).flatMap(treeOf)];
}

/** User and system time of a tree, in ms; steps of 10 ms per process. */
export function treeCpuMs(pid: number): number {
  return treeOf(pid).reduce((sum, one) => sum + cpuTimeMs(one), 0);
}

/** Memory of a tree in KiB; pages that processes share are counted once. */
export function treeMemoryKiB(pid: number): number {
  return treeOf(pid).reduce((sum, one) => sum + proportionalKiB(one), 0);
}

/** Stops a tree, parents first: what watches its child is stopped before that. */
export function pauseTree(pid: number): void {
  for (const one of treeOf(pid)) process.kill(one, "SIGSTOP");
}

/** Lets a tree go on, children first. */
export function resumeTree(pid: number): void {
  for (const one of treeOf(pid).reverse()) process.kill(one, "SIGCONT");
}

function proportionalKiB(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1]);
}
