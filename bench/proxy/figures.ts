/**
 * The names of the suite's figures, their units and their goals. A name is `CASE RIVAL WHAT`, or
 * `CASE patina/nginx WHAT` for what has a goal.
 */
import type { FigureSpec } from "../measure.ts";
import { CASES } from "./cases.ts";
import { hasCoresForTwoThreads } from "./pinning.ts";

/** What is told of a rival in a case, with its unit. */
export const UNIT_BY_WHAT = {
  /** User and system time of the process tree per request. */
  CPU: "us",
  rate: "/s",
  throughput: "MB/s",
  /** Share of its core that the tree took in the closed loop: below 90 % the load was the limit. */
  busy: "%",
  p50: "ms",
  p99: "ms",
  "p99.9": "ms",
  /** Share of the open loop's requests that were answered. */
  answered: "%",
  memory: "KiB",
} as const;

/** What is told of a rival in a case. */
export type What = keyof typeof UNIT_BY_WHAT;

/** A name. */
export function figureName(one: string, rival: string, what: What): string {
  return `${one} ${rival} ${what}`;
}

/** Patina beside nginx, or beside another one. */
export const BESIDE = { ratio: "patina/nginx", difference: "patina-nginx" } as const;
/** Patina's memory per idle connection beyond that of a socket of Node's own. */
export const IDLE_ADDED = "idle patina-node-net memory";
/** Two data-plane threads beside one. */
export const THREADS = {
  cpuRatio: "threads two/one CPU",
  leastShare: "threads least share of connections",
  rateRatio: "threads two/one rate",
} as const;

/** All figures that there can be, those with a goal first. */
export function allFigures(rivals: readonly string[]): FigureSpec[] {
  const goals = CASES.flatMap(({ name, goals }): FigureSpec[] => {
    const { cpuRatioAtMost, p99AddedMsAtMost, throughputRatioAtLeast } = goals;
    return [
      goal(figureName(name, BESIDE.ratio, "CPU"), "x", { atMost: cpuRatioAtMost }),
      goal(figureName(name, BESIDE.difference, "p99"), "ms", { atMost: p99AddedMsAtMost }),
      ...(throughputRatioAtLeast === undefined
        ? []
        : [
            goal(figureName(name, BESIDE.ratio, "throughput"), "x", {
              atLeast: throughputRatioAtLeast,
            }),
          ]),
    ];
  });
  const threads = [
    goal(THREADS.cpuRatio, "x", { atMost: 1.1 }),
    goal(THREADS.leastShare, "%", { atLeast: 35 }),
    ...(hasCoresForTwoThreads ? [goal(THREADS.rateRatio, "x", {})] : []),
  ];
  const each = [...CASES.map(({ name }) => name), "idle"].flatMap((one) =>
    rivals.flatMap((rival) =>
      Object.entries(UNIT_BY_WHAT).map(([what, unit]): FigureSpec => {
        return { name: figureName(one, rival, what as What), unit };
      }),
    ),
  );
  return [...goals, goal(IDLE_ADDED, "KiB", { atMost: 8 }), ...threads, ...each];
}

function goal(
  name: string,
  unit: string,
  target: { readonly atMost?: number | undefined; readonly atLeast?: number | undefined },
): FigureSpec {
  const { atMost, atLeast } = target;
  if (atMost !== undefined) return { name, unit, target: { atMost } };
  if (atLeast !== undefined) return { name, unit, target: { atLeast } };
  return { name, unit };
}
