/**
 * Where beats and breadcrumbs lie in shared memory, and how the watchdog reads them.
 *
 * Each loop has one region with one writer, the thread that runs the loop (`loop-beat.ts`). The
 * reader may look at any moment, also while the writer is stuck half-way through a breadcrumb, so
 * every ring entry carries its own sequence number: odd while it is being written, and different
 * afterwards (a seqlock). A torn entry is skipped, never waited for.
 *
 * | bytes of a region | content                                                              |
 * |-------------------|----------------------------------------------------------------------|
 * | 0..63             | Int32 cells, see `CELL`                                              |
 * | 64..127           | Float64 vitals, see `VITAL`                                          |
 * | 128..             | ring of 16 breadcrumbs, each: Int32 sequence, kind, length, is cut;  |
 * |                   | Float64 value; 512 bytes                                             |
 */
import type { BreadcrumbRecord, LoopPhase } from "../types.ts";

/** Bytes of a breadcrumb. Enough for a change id with a primary key; longer ones are cut. */
export const BREADCRUMB_BYTES_MAX = 512;

/** Breadcrumbs kept per loop. */
export const BREADCRUMBS_KEPT = 16;

/** Phases by their number in shared memory. */
export const PHASES: readonly LoopPhase[] = ["boot", "load", "apply", "steady", "drain"];

/** Int32 cells of a region. Beats and progress wrap: compare for equality only. */
export const CELL = {
  /** 0 = never attached, 1 = watched, 2 = left. */
  watched: 0,
  beats: 1,
  phase: 2,
  progress: 3,
  /** Node's number of the thread; 0 is the main thread. */
  threadId: 4,
  /** The kernel's number of the thread; 0 = unknown. */
  nativeThreadId: 5,
  /** Breadcrumbs ever written; the newest is at (cursor - 1) modulo the ring. */
  cursor: 6,
  /** 1 while the newest breadcrumb's work is in progress. */
  inProgress: 7,
} as const;

/** Float64 cells of a region. */
export const VITAL = { heapUsed: 0, heapTotal: 1, external: 2, utilisation: 3, idleMs: 4 } as const;

/** Typed views of one loop's region. */
export interface LoopRegion {
  readonly cells: Int32Array;
  readonly vitals: Float64Array;
  readonly ring: readonly RingEntry[];
}

/** Typed views of one breadcrumb. `cells`: sequence, kind, length, is cut. */
export interface RingEntry {
  readonly cells: Int32Array;
  readonly value: Float64Array;
  readonly bytes: Uint8Array;
}

/** What one poll needs of a loop. */
export interface LoopCells {
  readonly isWatched: boolean;
  readonly beats: number;
  readonly phase: LoopPhase;
  readonly progress: number;
  /** As of the last beat. */
  readonly idleMs: number;
  readonly threadId: number;
  readonly nativeThreadId: number;
}

/** Creates zeroed shared memory for `loops` loops. */
export function allocateLoops(loops: number): SharedArrayBuffer {
  return new SharedArrayBuffer(Math.max(loops, 1) * REGION_BYTES);
}

/** Views of loop `loop`, by its position in the declared order. */
export function loopRegion(buffer: SharedArrayBuffer, loop: number): LoopRegion {
  const start = loop * REGION_BYTES;
  const ring = Array.from({ length: BREADCRUMBS_KEPT }, (_unused, index) => {
    const at = start + HEAD_BYTES + index * ENTRY_BYTES;
    return {
      cells: new Int32Array(buffer, at, 4),
      value: new Float64Array(buffer, at + 16, 1),
      bytes: new Uint8Array(buffer, at + 24, BREADCRUMB_BYTES_MAX),
    };
  });
  return {
    cells: new Int32Array(buffer, start, 16),
    vitals: new Float64Array(buffer, start + 64, 8),
    ring,
  };
}

/** Reads the numbers of a loop. */
export function readLoop({ cells, vitals }: LoopRegion): LoopCells {
  return {
    isWatched: Atomics.load(cells, CELL.watched) === 1,
    beats: Atomics.load(cells, CELL.beats),
    phase: PHASES[Atomics.load(cells, CELL.phase)] ?? "steady",
    progress: Atomics.load(cells, CELL.progress),
    idleMs: vitals[VITAL.idleMs] ?? 0,
    threadId: Atomics.load(cells, CELL.threadId),
    nativeThreadId: Atomics.load(cells, CELL.nativeThreadId),
  };
}

/** The breadcrumb whose work is in progress, or null. */
export function currentBreadcrumb(region: LoopRegion): BreadcrumbRecord | null {
  if (Atomics.load(region.cells, CELL.inProgress) !== 1) return null;
  return readEntry(region, Atomics.load(region.cells, CELL.cursor) - 1);
}

/** The last breadcrumbs, newest first; entries that are being written are left out. */
export function lastBreadcrumbs(region: LoopRegion): readonly BreadcrumbRecord[] {
  const cursor = Atomics.load(region.cells, CELL.cursor);
  const records: BreadcrumbRecord[] = [];
  for (let back = 1; back <= BREADCRUMBS_KEPT; back++) {
    const record = readEntry(region, cursor - back);
    if (record !== null) records.push(record);
  }
  return records;
}

function readEntry(region: LoopRegion, position: number): BreadcrumbRecord | null {
  const entry = region.ring[position & (BREADCRUMBS_KEPT - 1)];
  if (entry === undefined) return null;
  const before = Atomics.load(entry.cells, 0);
  // 0 = never written; odd = being written.
  if (before === 0 || (before & 1) === 1) return null;
  const kind = entry.cells[1] ?? 0;
  const length = Math.min(Math.max(entry.cells[2] ?? 0, 0), BREADCRUMB_BYTES_MAX);
  const isCut = entry.cells[3] === 1;
  const value = entry.value[0] ?? 0;
  const bytes = Uint8Array.from(entry.bytes.subarray(0, length));
  if (Atomics.load(entry.cells, 0) !== before) return null;
  return { kind, value, bytes, isCut };
}

const HEAD_BYTES = 128;
const ENTRY_BYTES = 24 + BREADCRUMB_BYTES_MAX;
/** A multiple of 64, so that no two loops share a cache line. */
const REGION_BYTES = Math.ceil((HEAD_BYTES + BREADCRUMBS_KEPT * ENTRY_BYTES) / 64) * 64;
