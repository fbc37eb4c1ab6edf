/**
 * What /proc tells of a process and its threads, for evidence and for telling a stuck loop from a
 * starved one.
 *
 * Everything here is best effort: where a file is absent (another system, hidepid, a thread that
 * has ended) the fact is left out, because evidence with a hole is better than none.
 */
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import type { ThreadFacts } from "../types.ts";

/** The kernel's number of the calling thread; 0 where it is not known. */
export function ownNativeThreadId(): number {
  try {
    return Number(readlinkSync("/proc/thread-self").split("/").at(-1));
  } catch (error) {
    return absent(error, 0);
  }
}

/** Facts of every thread of a process, at most 64. */
export function threadsOf(pid: number): readonly ThreadFacts[] {
  try {
    const ids = readdirSync(`/proc/${pid}/task`).slice(0, THREADS_MAX);
    return ids.map((id) => threadFacts(pid, Number(id)));
  } catch (error) {
    return absent(error, []);
  }
}

/** Facts of one thread. */
export function threadFacts(pid: number, threadId: number): ThreadFacts {
  const folder = `/proc/${pid}/task/${threadId}`;
  const stat = readText(`${folder}/stat`);
  // The name is in parentheses and may itself contain some: fields start after the last one.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ") ?? [];
  const name = stat?.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
  const waitChannel = readText(`${folder}/wchan`)?.trim();
  const systemCall = readText(`${folder}/syscall`)?.trim().split(" ")[0];
  return {
    threadId,
    ...(name !== undefined && { name }),
    ...(fields[0] !== undefined && { state: fields[0] }),
    ...(waitChannel !== undefined && waitChannel !== "0" && { waitChannel }),
    ...(systemCall !== undefined && { systemCall }),
    ...(fields[11] !== undefined && { userMs: Number(fields[11]) * TICK_MS }),
    ...(fields[12] !== undefined && { systemMs: Number(fields[12]) * TICK_MS }),
  };
}

/** Milliseconds a thread has waited for a CPU while it could run; 0 where it is not known. */
export function starvedMs(pid: number, threadId: number): number {
  if (threadId === 0) return 0;
  // proc(5) schedstat: time on the CPU, time waiting on a run queue (ns), time slices.
  const text = readText(`/proc/${pid}/task/${threadId}/schedstat`);
  const waitedNs = Number(text?.split(" ")[1] ?? 0);
  return Number.isFinite(waitedNs) ? waitedNs / 1e6 : 0;
}

/** Memory, descriptors, threads and load of a process; keys carry their units. */
export function resourcesOf(pid: number): Record<string, number> {
  const resources: Record<string, number> = {};
  const status = readText(`/proc/${pid}/status`) ?? "";
  for (const [key, field, factor] of STATUS_FIELDS) {
    const found = new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(status)?.[1];
    if (found !== undefined) resources[key] = Number(found) * factor;
  }
  try {
    resources["openFiles"] = readdirSync(`/proc/${pid}/fd`).length;
  } catch (error) {
    absent(error, 0);
  }
  const load = Number(readText("/proc/loadavg")?.split(" ")[0]);
  if (Number.isFinite(load)) resources["loadAverage1m"] = load;
  return resources;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    return absent(error, undefined);
  }
}

/** A fact that cannot be had is no error: the file or thread is gone, or the system has none. */
function absent<Value>(_error: unknown, value: Value): Value {
  return value;
}

const STATUS_FIELDS: readonly (readonly [string, string, number])[] = [
  ["residentBytes", "VmRSS", 1024],
  ["residentPeakBytes", "VmHWM", 1024],
  ["swapBytes", "VmSwap", 1024],
  ["threads", "Threads", 1],
  ["voluntarySwitches", "voluntary_ctxt_switches", 1],
  ["forcedSwitches", "nonvoluntary_ctxt_switches", 1],
];

/** Node sets no limit; a process with more threads than this has another problem. */
const THREADS_MAX = 64;
/** USER_HZ is 100 on every Linux that Node runs on. */
const TICK_MS = 10;
