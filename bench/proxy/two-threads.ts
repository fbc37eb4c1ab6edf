/**
 * Patina with two data-plane threads beside itself with one: CPU per request, and how the kernel
 * shares out the connections between the threads' sockets. What each does in throughput is told
 * only where there are cores for both beside load and upstream.
 *
 * Whose a connection is, is read from the kernel: each event loop's epoll lists what it watches.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Sample } from "../measure.ts";
import { CASES, type Case } from "./cases.ts";
import { THREADS } from "./figures.ts";
import { closeAll, openAll } from "./idle-connections.ts";
import { closedLoad } from "./load.ts";
import { hasCoresForTwoThreads, TWO_THREAD_CORES } from "./pinning.ts";
import { treeCpuMs, treeOf } from "./process-tree.ts";
import { startPatina, type Rival, type Stage } from "./rivals.ts";

/** Starts the second edge. */
export function startTwoThreads(stage: Stage): Promise<Rival> {
  return startPatina(stage, { threads: 2, cores: TWO_THREAD_CORES });
}

/** One run: the edges one after the other. `only` lets one run and stops the other. */
export async function twoThreads(
  edges: { readonly one: Rival; readonly two: Rival },
  options: { readonly seconds: number; readonly only: (rival: Rival) => void },
): Promise<Sample> {
  const measured = async (rival: Rival): Promise<{ cpuUs: number; rate: number }> => {
    options.only(rival);
    await closedLoad(TRAFFIC, rival, 1);
    const beforeMs = treeCpuMs(rival.pid);
    const { requests, seconds } = await closedLoad(TRAFFIC, rival, options.seconds);
    const usedMs = treeCpuMs(rival.pid) - beforeMs;
    return { cpuUs: (usedMs * 1_000) / requests, rate: requests / seconds };
  };
  const one = await measured(edges.one);
  const two = await measured(edges.two);
  const shares = await sharesOf(edges.two);
  return {
    [THREADS.cpuRatio]: two.cpuUs / one.cpuUs,
    [THREADS.leastShare]: Math.min(...shares),
    ...(hasCoresForTwoThreads ? { [THREADS.rateRatio]: two.rate / one.rate } : {}),
  };
}

/** Percent of the connections that each thread has taken. */
async function sharesOf(rival: Rival): Promise<number[]> {
  const sockets = await openAll(rival.port, CONNECTIONS_SHARED);
  const counts = treeOf(rival.pid).flatMap((pid) => connectionsByLoop(pid, rival.port));
  await closeAll(sockets);
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (all < CONNECTIONS_SHARED) throw new Error(`${all} connections of ${CONNECTIONS_SHARED}`);
  // A thread that had none would not be listed at all.
  const [first = 0, second = 0] = counts;
  return [first, second].map((count) => (100 * count) / all);
}

/** Client connections that each event loop of a process watches, loops without any left out. */
export function connectionsByLoop(pid: number, port: number): number[] {
  const inodes = clientInodes(port);
  const targetByFd = new Map(
    readdirSync(`/proc/${pid}/fd`).map((fd) => [fd, linkOf(`/proc/${pid}/fd/${fd}`)]),
  );
  return [...targetByFd]
    .filter(([, target]) => target === "anon_inode:[eventpoll]")
    .map(([loop]) => {
      const text = readFileSync(`/proc/${pid}/fdinfo/${loop}`, "utf8");
      const watched = [...text.matchAll(/^tfd:\s+(\d+)/gm)].map(([, fd = ""]) => fd);
      return watched.filter((fd) => inodes.has(inodeOf(targetByFd.get(fd)))).length;
    })
    .filter((count) => count > 0);
}

/** Inodes of the accepted sockets of a port, from the kernel's table of connections. */
function clientInodes(port: number): ReadonlySet<string> {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = readFileSync("/proc/net/tcp", "utf8").trim().split("\n").slice(1);
  return new Set(
    rows
      .map((row) => row.trim().split(/\s+/))
      .filter(([, local = "", , state]) => local.endsWith(suffix) && state === ESTABLISHED)
      .map((fields) => fields[9] ?? ""),
  );
}

function inodeOf(target: string | undefined): string {
  return /^socket:\[(\d+)\]$/.exec(target ?? "")?.[1] ?? "";
}

/** Empty when the descriptor has been closed since it was listed. */
function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return "";
    throw error;
  }
}

const TRAFFIC: Case = { ...CASES.find(({ name }) => name === "get-1k")!, connections: 64 };
/** So many that chance alone leaves no thread below 35 %. */
const CONNECTIONS_SHARED = 400;
const ESTABLISHED = "01";
