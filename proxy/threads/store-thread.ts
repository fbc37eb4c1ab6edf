/** Entry of the store's thread: watched like the others, then the store worker itself. */
import { workerData } from "node:worker_threads";
import type { LoopBeatPlan } from "../../watchdog/types.ts";
import { attachLoop } from "../../watchdog/watchdog.ts";

const loop = attachLoop((workerData as { beat: LoopBeatPlan }).beat);
await import("../../replica/driver/store/store-worker.ts");
loop.beat.enter("steady");
