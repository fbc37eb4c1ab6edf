/** The supervisor's side of evidence: what alerts tell of it, and what it writes itself. */
import { workText } from "../../core/alert-outbox.ts";
import type { LateWork } from "../../core/pipe-lines.ts";
import type { StallFacts } from "../../core/stall-detector.ts";
import { resourcesOf, threadsOf } from "../../driver/proc-facts.ts";
import { newStallId, readStall, stallFile } from "../../driver/stall-files.ts";
import type { StallEvidence } from "../../types.ts";

/** What an alert says of a file of evidence. */
export function evidenceFields(stateFolder: string, id: string): Readonly<Record<string, unknown>> {
  const file = stallFile(stateFolder, id);
  const evidence = readStall(stateFolder, id);
  if (!evidence.ok) return { stall: id, file, evidenceProblem: evidence.error };
  const { kind, loop, phase, isLivelock, budgetMs, silentMs, breadcrumb, error } = evidence.value;
  const { stack } = evidence.value;
  const at = stack.kind === "javascript" ? topFrame(stack.frames) : stack.reason;
  const { fleet } = evidence.value;
  const where = { kind, loop, phase, isLivelock, budgetMs, silentMs, fleet };
  return { stall: id, file, ...where, error, breadcrumb, at };
}

/** What evidence is of, in words, with the work that was at hand. */
export function happened(evidence: StallEvidence): string {
  const { loop, kind, error, isLivelock, breadcrumb, fleet } = evidence;
  const stalled = isLivelock === true ? "turned without getting anywhere" : "stalled";
  const ended = kind === "crash" ? `crashed (${error})` : "fell silent";
  const what = kind === "stall" ? stalled : ended;
  const work = workText(breadcrumb);
  const at = work === null ? "" : ` at ${work}`;
  const others = fleet?.isSpent === true ? `; ${fleet.peers} other edges were bounced lately` : "";
  return `loop ${loop} ${what}${at}${others}`;
}

function topFrame(frames: Frames): string {
  const [frame] = frames;
  return frame === undefined ? "no frames" : `${frame.function} (${frame.url}:${frame.line})`;
}

type Frames = Extract<StallEvidence["stack"], { kind: "javascript" }>["frames"];

/** Evidence of an edge whose watchdog itself fell silent: it runs, and the kernel tells of it. */
export function silenceEvidence(pid: number, stall: StallFacts): StallEvidence {
  const reason = "the watchdog thread itself fell silent; the kernel's view of its process follows";
  return {
    ...outside(pid, "edge"),
    kind: "silence",
    phase: stall.phase,
    budgetMs: stall.budgetMs,
    silentMs: Math.round(stall.silentMs),
    misses: stall.misses,
    stack: { kind: "native", reason, thread: null },
    error: null,
    breadcrumb: null,
    lastBreadcrumbs: [],
    resources: resourcesOf(pid),
    threads: threadsOf(pid),
  };
}

/** Evidence of an edge that aborted; `work` is what a late loop was last heard to be at. */
export function abortEvidence(pid: number, work: LateWork, signal: string): StallEvidence {
  const { loop, phase, breadcrumb } = work;
  const reason = "the process ended before anybody could look";
  return {
    ...outside(pid, loop),
    kind: "crash",
    phase,
    budgetMs: 0,
    silentMs: 0,
    misses: 0,
    stack: { kind: "native", reason, thread: null },
    error: `the process aborted (${signal}), for want of memory or in native code`,
    breadcrumb,
    lastBreadcrumbs: [breadcrumb],
    resources: {},
    threads: [],
  };
}

function outside(pid: number, loop: string) {
  const time = new Date();
  return {
    format: 1,
    id: newStallId(time, pid, loop),
    time: time.toISOString(),
    pid,
    loop,
    action: "bounce",
    loops: [],
    configHash: "",
  } as const;
}
