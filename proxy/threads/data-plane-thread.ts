/** Entry of a data-plane thread beside the main one: its own table and its own socket. */
import { parentPort, workerData } from "node:worker_threads";
import { errorText, PatinaError } from "#base/errors.ts";
import { LogLevelCell } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { StoreClient } from "../../replica/driver/store/store-client.ts";
import { attachLoop } from "../../watchdog/watchdog.ts";
import { DataPlane } from "../data-plane.ts";
import { loadFirstTable } from "../first-table.ts";
import type { DataPlaneThreadData, DataPlaneThreadEvent, ThreadCommand } from "./messages.ts";
import { createThreadLog } from "./thread-log.ts";

const data = workerData as DataPlaneThreadData;
await main();

async function main(): Promise<void> {
  const { config } = data.effective;
  const loop = attachLoop(data.beat);
  const log = createThreadLog(new LogLevelCell(data.logLevel), "data-plane");
  const metrics = MetricSlots.attach(data.metrics).writer(data.bank);
  // Another thread may have died in this one's place.
  metrics.resetGauges();
  const plane = new DataPlane({
    loop: data.loop,
    config,
    metrics,
    beat: loop.beat,
    log,
    load: data.load,
    limits: data.limits,
    ticketKeys: data.ticketKeys,
    quarantine: data.quarantine,
    // The main thread's table sees the same changes, and keeps the books.
    events: { superseded: () => undefined, cautionOver: () => undefined },
  });
  let connecting = StoreClient.connect(data.storePort);
  let isDetached = false;
  const follow = async (): Promise<void> => {
    try {
      await plane.follow(await connecting);
    } catch (error) {
      // A connection that was given up before it was made.
      if (!isDetached) throw error;
    }
  };
  const failUnlessDetached = (error: unknown): void => {
    if (!isDetached) fail(error);
  };
  parentPort?.on("message", (command: ThreadCommand) => {
    switch (command.kind) {
      case "rtt":
        return plane.sampleRtt(command.actorId, command.rttMs);
      case "host":
        return plane.setHostDown(command.actorId, command.isDown);
      case "notice":
        return plane.feed.notice(command);
      case "releaseWaiting":
        return void plane.feed.release(command.id);
      case "ready":
        void connecting.then((store) => plane.becomeReady(store)).catch(failUnlessDetached);
        return;
      case "detach":
        isDetached = true;
        void plane.pause().then(() => tell({ kind: "detached" }));
        return;
      case "attach":
        isDetached = false;
        connecting = StoreClient.connect(command.storePort);
        follow().catch(fail);
        return;
      case "quarantine":
        return plane.setQuarantine(command.state, command.isRefeed);
      case "reload":
        return plane.refreshCertificates();
      case "answer":
      case "held":
      case "released":
        // For the replica thread alone.
        return;
      case "stop":
        void plane.drain(command.deadlineMs).then((cut) => {
          loop.leave();
          tell({ kind: "drained", cut });
          parentPort?.close();
        });
        return;
    }
  });
  try {
    const { cautiousUntil, frozen } = data.quarantine;
    const isFrozen = frozen !== null;
    loadFirstTable(plane, { databasePath: config.db.path, log, cautiousUntil, isFrozen });
    if (plane.table.machineCount > 0) plane.setReady();
    plane.prepare(data.fds);
    await plane.listen();
    loop.beat.enter("steady");
    tell({ kind: "listening", port: plane.address?.port ?? 0 });
    await follow();
  } catch (error) {
    fail(error);
  }
}

/** Unforeseen: the end of this thread, with evidence of what it was at. */
function fail(error: unknown): void {
  if (!(error instanceof PatinaError)) throw error;
  tell({ kind: "failed", code: error.code, message: errorText(error) });
}

function tell(event: DataPlaneThreadEvent): void {
  parentPort?.postMessage(event);
}
