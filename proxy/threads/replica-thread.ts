/** Entry of the replica thread. */
import { parentPort, workerData } from "node:worker_threads";
import { errorText, PatinaError } from "#base/errors.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { startReplica, type Replica } from "../../replica/replica.ts";
import { attachLoop } from "../../watchdog/watchdog.ts";
import { udpFaults } from "../fault.ts";
import type { ReplicaThreadData, ReplicaThreadEvent, ThreadCommand } from "./messages.ts";
import { createThreadLog } from "./thread-log.ts";

const data = workerData as ReplicaThreadData;
await main();

async function main(): Promise<void> {
  const { config, mode, extensionPath } = data.effective;
  const loop = attachLoop(data.beat);
  const faults = udpFaults(config.fault);
  let replica: Replica;
  try {
    replica = await startReplica({
      db: config.db,
      gossip: config.gossip,
      api: config.api,
      perf: config.perf,
      identity: config.replica,
      kind: mode === "edge" ? "edge" : "worker",
      storePort: data.storePort,
      extensionPath,
      log: createThreadLog(config.log.level, "replica"),
      metrics: MetricSlots.attach(data.metrics).writer(data.bank),
      ...(faults ? { faults } : {}),
      events: {
        rtt: (actorId, rttMs) => tell({ kind: "rtt", actorId, rttMs }),
        host: (actorId, isDown) => tell({ kind: "host", actorId, isDown }),
        synced: () => tell({ kind: "synced" }),
        failed: (error) => tellFailure(error),
      },
    });
  } catch (error) {
    loop.leave();
    tellFailure(error);
    return;
  }
  loop.beat.enter("steady");
  tell({ kind: "started", gossip: replica.gossipAddress, api: replica.apiAddress });
  parentPort?.on("message", (command: ThreadCommand) => {
    if (command.kind !== "stop") return;
    void replica.stop({ leave: true }).then(() => {
      loop.leave();
      tell({ kind: "stopped" });
      parentPort?.close();
    });
  });
}

function tell(event: ReplicaThreadEvent): void {
  parentPort?.postMessage(event);
}

function tellFailure(error: unknown): void {
  const code = error instanceof PatinaError ? error.code : "INTERNAL";
  tell({ kind: "failed", code, message: errorText(error) });
}
