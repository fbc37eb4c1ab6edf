/** Entry of the store's thread: watched like the others, with a note of what it merges. */
import { workerData } from "node:worker_threads";
import { attachLoop } from "../../watchdog/watchdog.ts";
import { noteChangeset } from "../breadcrumbs.ts";
import { changesetFault } from "../fault.ts";
import type { StoreThreadData } from "./messages.ts";

const { beat: plan, fault } = workerData as StoreThreadData;
const { beat } = attachLoop(plan);
const stall = changesetFault(fault, "store");
const { serveStore } = await import("../../replica/driver/store/store-worker.ts");
serveStore({
  applying: (changeset) => {
    noteChangeset(beat, changeset);
    stall?.(changeset);
  },
  // Not at once: what is thrown in the same turn is still about the changeset.
  applied: () => setImmediate(() => beat.done()),
});
beat.enter("steady");
