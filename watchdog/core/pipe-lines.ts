/**
 * The lines an edge writes to its supervisor's pipe.
 *
 * | line    | meaning                                             |
 * |---------|-----------------------------------------------------|
 * | `b`     | the watchdog thread lives (every 250 ms)            |
 * | `r`     | ready: requests are answered                        |
 * | `d`     | no longer ready: draining, or the table is gone     |
 * | `s <id>`| evidence with this id has been written              |
 * | `a {}`  | an alert, as JSON                                   |
 * | `p`     | the table is loaded; waits for the word to take over |
 * | `h`     | handed over: no replica, no database any more       |
 * | `w {}`  | a loop is late, and what it is at; or is no longer  |
 * | `f <n>` | n peers were bounced, beyond the fleet's budget; 0 = it is not spent |
 *
 * The edge may die in the middle of a line, or be broken and write anything: unknown lines count as
 * a sign of life and nothing else, and no more than one line of 16 KiB is kept.
 */
import type { Alert, LoopPhase } from "../types.ts";
import { readAlert } from "./alert-outbox.ts";
import { PHASES } from "./shared-layout.ts";

/** One line as understood. */
export type PipeLine =
  | { readonly kind: "beat" | "ready" | "notReady" | "loaded" | "handedOver" | "unknown" }
  | { readonly kind: "stall"; readonly id: string }
  | { readonly kind: "alert"; readonly alert: Alert }
  | { readonly kind: "work"; readonly work: LateWork }
  | { readonly kind: "fleet"; readonly peers: number };

/** What a loop is at that has not beaten for a while: all that is left when the process aborts. */
export interface LateWork {
  readonly loop: string;
  readonly phase: LoopPhase;
  /** Decoded; null = the loop beats again. */
  readonly breadcrumb: unknown;
}

/** The line that carries it, without its end. */
export function workLine(work: LateWork): string {
  const line = `w ${JSON.stringify(work)}`;
  return line.length < LINE_MAX ? line : `w ${JSON.stringify({ ...work, breadcrumb: "too long" })}`;
}

/** The line that carries an alert, without its end; one that is too long goes without its fields. */
export function alertLine(alert: Alert): string {
  const line = `a ${JSON.stringify(alert, plainNumber)}`;
  return line.length < LINE_MAX ? line : `a ${JSON.stringify({ ...alert, fields: {} })}`;
}

/** Cuts the bytes of one edge's pipe into lines. */
export class PipeLines {
  readonly #decoder = new TextDecoder();
  #rest = "";

  /** Takes what was read; the answer is the lines that it completes. */
  take(bytes: Uint8Array): readonly PipeLine[] {
    const parts = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = (parts.pop() ?? "").slice(0, LINE_MAX);
    return parts.map(parseLine);
  }
}

function parseLine(line: string): PipeLine {
  const kind = KIND_BY_LETTER.get(line);
  if (kind !== undefined) return { kind };
  if (line.startsWith("a ")) return parseAlert(line.slice(2));
  if (line.startsWith("w ")) return parseWork(line.slice(2));
  const peers = FLEET.exec(line)?.[1];
  if (peers !== undefined) return { kind: "fleet", peers: Number(peers) };
  const id = STALL.exec(line)?.[1];
  return id === undefined ? { kind: "unknown" } : { kind: "stall", id };
}

function parseAlert(text: string): PipeLine {
  try {
    const alert = readAlert(JSON.parse(text));
    return alert === null ? { kind: "unknown" } : { kind: "alert", alert };
  } catch {
    // Cut short, or no JSON: a sign of life.
    return { kind: "unknown" };
  }
}

function parseWork(text: string): PipeLine {
  try {
    const value = JSON.parse(text) as Partial<LateWork> | null;
    const { loop, phase, breadcrumb } = value ?? {};
    const known = PHASES.find((one) => one === phase);
    if (typeof loop !== "string" || known === undefined || breadcrumb === undefined) {
      return { kind: "unknown" };
    }
    return { kind: "work", work: { loop, phase: known, breadcrumb } };
  } catch {
    // As above.
    return { kind: "unknown" };
  }
}

/** JSON has no bigint. */
function plainNumber(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

const KIND_BY_LETTER: ReadonlyMap<
  string,
  Exclude<PipeLine["kind"], "stall" | "alert" | "work" | "fleet">
> = new Map([
  ["b", "beat"],
  ["r", "ready"],
  ["d", "notReady"],
  ["p", "loaded"],
  ["h", "handedOver"],
]);
const LINE_MAX = 16_384;
const FLEET = /^f (\d{1,6})$/;
const STALL = /^s ([0-9A-Za-z][0-9A-Za-z-]{0,127})$/;
