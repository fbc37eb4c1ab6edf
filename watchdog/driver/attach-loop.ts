/**
 * Attaches the calling thread's event loop to the watchdog: a timer beats, so that an idle loop
 * shows life too, and says how long the loop has been idle; about once a second the loop's memory
 * and busy share are reported.
 */
import { performance } from "node:perf_hooks";
import { threadId } from "node:worker_threads";
import { getHeapStatistics } from "node:v8";
import { LoopBeat } from "../core/loop-beat.ts";
import type { LoopBeatPlan } from "../types.ts";
import { ownNativeThreadId } from "./proc-facts.ts";

/** A watched loop. */
export interface AttachedLoop {
  /** For phases, breadcrumbs and progress. */
  readonly beat: LoopBeat;
  /** Ends being watched; call before the thread ends on purpose. */
  leave(): void;
}

/** Attaches the calling thread. The timer does not keep the thread alive. */
export function attachLoop(plan: LoopBeatPlan, beatPeriodMs = BEAT_PERIOD_MS): AttachedLoop {
  const beat = LoopBeat.attach(plan, { threadId, nativeThreadId: ownNativeThreadId() });
  let last = performance.eventLoopUtilization();
  const reportVitals = (): void => {
    const now = performance.eventLoopUtilization();
    const { used_heap_size, total_heap_size, external_memory } = getHeapStatistics();
    beat.vitals({
      heapUsedBytes: used_heap_size,
      heapTotalBytes: total_heap_size,
      externalBytes: external_memory,
      utilisation: performance.eventLoopUtilization(now, last).utilization,
    });
    last = now;
  };
  // At once, so that the evidence of a loop that stalls before its first beat has them too.
  reportVitals();
  let beats = 0;
  const timer = setInterval(() => {
    beat.turn(performance.eventLoopUtilization().idle);
    beats += 1;
    if (beats % VITALS_EVERY_BEATS === 0) reportVitals();
  }, beatPeriodMs);
  timer.unref();
  return {
    beat,
    leave: () => {
      clearInterval(timer);
      beat.leave();
    },
  };
}

/** A tenth of the smallest default budget: ten beats must go missing, not one. */
const BEAT_PERIOD_MS = 100;
/** About once a second: heap statistics cost some microseconds. */
const VITALS_EVERY_BEATS = 10;
