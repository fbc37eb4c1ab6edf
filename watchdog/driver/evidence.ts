/**
 * Puts together what is known about a stall or a crash from shared memory and /proc.
 *
 * Used by the watchdog thread for a stalled loop and by the crashing thread itself for an
 * exception. Breadcrumbs are decoded here, off the hot path; a decoder that throws costs its
 * meaning, not the record.
 */
import { errorText } from "#base/errors.ts";
import { type LoopRegion, VITAL, currentBreadcrumb } from "../core/shared-layout.ts";
import { lastBreadcrumbs, readLoop } from "../core/shared-layout.ts";
import type { BreadcrumbDecoder, BreadcrumbRecord, LoopStatus } from "../types.ts";
import type { StackEvidence, StackFrame, StallEvidence } from "../types.ts";
import { resourcesOf, threadsOf } from "./proc-facts.ts";
import { newStallId } from "./stall-files.ts";

/** What the caller knows; the rest is read. */
export interface EvidenceRequest extends Pick<
  StallEvidence,
  | "kind"
  | "loop"
  | "action"
  | "phase"
  | "budgetMs"
  | "silentMs"
  | "misses"
  | "isLivelock"
  | "configHash"
  | "fleet"
> {
  readonly stack: StackEvidence;
  readonly error: string | null;
  /** The accused loop's region. */
  readonly region: LoopRegion;
  readonly loops: readonly LoopStatus[];
  readonly decoder: BreadcrumbDecoder | null;
}

/** Builds the evidence of this process as it is at this moment. */
export function buildEvidence(request: EvidenceRequest): StallEvidence {
  const { region, decoder, ...known } = request;
  const time = new Date();
  const last = lastBreadcrumbs(region);
  return {
    format: 1,
    id: newStallId(time, process.pid, known.loop),
    time: time.toISOString(),
    pid: process.pid,
    ...known,
    breadcrumb: workInProgress(region, decoder),
    lastBreadcrumbs: last.map((record) => decodeRecord(record, decoder)),
    resources: resourcesOf(process.pid),
    threads: threadsOf(process.pid),
  };
}

/** The work in progress of a loop, decoded; null = it is between pieces of work. */
export function workInProgress(region: LoopRegion, decoder: BreadcrumbDecoder | null): unknown {
  const current = currentBreadcrumb(region);
  return current === null ? null : decodeRecord(current, decoder);
}

/** A loop as its region stands; `silentMs` is the detector's. */
export function loopStatus(name: string, region: LoopRegion, silentMs: number): LoopStatus {
  const { isWatched, phase, beats, progress } = readLoop(region);
  return {
    name,
    isWatched,
    phase,
    beats,
    progress,
    silentMs: Math.round(silentMs),
    heapUsedBytes: region.vitals[VITAL.heapUsed] ?? 0,
    heapTotalBytes: region.vitals[VITAL.heapTotal] ?? 0,
    externalBytes: region.vitals[VITAL.external] ?? 0,
    utilisation: region.vitals[VITAL.utilisation] ?? 0,
  };
}

/** The frames of a thrown error, as far as its `stack` text tells. */
export function errorFrames(thrown: unknown): readonly StackFrame[] {
  const lines = thrown instanceof Error ? (thrown.stack ?? "").split("\n") : [];
  return lines.flatMap((line) => {
    const found = FRAME.exec(line);
    if (found === null) return [];
    const [, name, url = "", row, column] = found;
    return { function: name ?? "(anonymous)", url, line: Number(row), column: Number(column) };
  });
}

function decodeRecord(record: BreadcrumbRecord, decoder: BreadcrumbDecoder | null): unknown {
  if (decoder === null) return rawRecord(record);
  try {
    // Must survive JSON: a bigint from the decoder would lose the whole file.
    return JSON.parse(JSON.stringify(decoder.decodeBreadcrumb(record) ?? null)) as unknown;
  } catch (error) {
    return { ...rawRecord(record), decoderError: errorText(error) };
  }
}

function rawRecord(record: BreadcrumbRecord): Readonly<Record<string, unknown>> {
  const { kind, value, bytes, isCut } = record;
  return { kind, value, note: new TextDecoder().decode(bytes), isCut };
}

/** `    at name (url:12:34)` or `    at url:12:34`. */
const FRAME = /^\s+at (?:(.+) \()?(.+):(\d+):(\d+)\)?$/;
