/** Entry of the replica thread. */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { errorText, PatinaError } from "#base/errors.ts";
import { LEVELS, LogLevelCell, type LogLevel } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { CorrosionMirror } from "../../replica/driver/corrosion/corrosion-mirror.ts";
import type { MirroredRow } from "../../replica/driver/corrosion/mirrored-table.ts";
import { startReplica, type Replica } from "../../replica/replica.ts";
import { PeerBounces } from "../../watchdog/core/peer-bounces.ts";
import { attachLoop } from "../../watchdog/watchdog.ts";
import { adminPathOf } from "../effective-config.ts";
import { udpFaults } from "../fault.ts";
import { readSchemaFiles } from "../schema-sources.ts";
import { EdgeQuestions } from "./edge-questions.ts";
import type { ReplicaThreadData, ReplicaThreadEvent, ThreadCommand } from "./messages.ts";
import { NoticeDesk } from "./notice-desk.ts";
import { createThreadLog } from "./thread-log.ts";

const data = workerData as ReplicaThreadData;
const questions = new EdgeQuestions(tell);
await main();

async function main(): Promise<void> {
  const { config, mode, extensionPath, deadlinePath } = data.effective;
  const loop = attachLoop(data.beat);
  const faults = udpFaults(config.fault);
  const logLevel = new LogLevelCell(data.logLevel);
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
      deadlinePath,
      log: createThreadLog(logLevel, "replica"),
      metrics: MetricSlots.attach(data.metrics).writer(data.bank),
      ...(faults ? { faults } : {}),
      events: {
        rtt: (actorId, rttMs) => tell({ kind: "rtt", actorId, rttMs }),
        host: (actorId, isDown) => tell({ kind: "host", actorId, isDown }),
        // With another engine it is the mirror that knows.
        synced: () => config.replica.engine === "patina" && tell({ kind: "synced" }),
        storeFault: (reason) => tell({ kind: "storeFault", reason }),
        failed: (error) => tellFailure(error),
      },
      admin: {
        path: adminPathOf(data.effective),
        isDefaultPath: config.admin.path === undefined,
        log: {
          set: (filter) => logLevel.set(levelOf(filter)),
          reset: () => logLevel.set(config.log.level as LogLevel),
        },
        edge: mode === "edge" ? (question) => questions.ask(question) : null,
        readSchema: () => readSchemaFiles(config.db.schema_paths),
      },
    });
  } catch (error) {
    loop.leave();
    tellFailure(error);
    return;
  }
  const desk = data.witnessPort === null ? null : await openDesk(replica, data.witnessPort);
  const mirror = await openMirror(replica);
  loop.beat.enter("steady");
  tell({ kind: "started", gossip: replica.gossipAddress, api: replica.apiAddress });
  parentPort?.on("message", (command: ThreadCommand) => {
    if (command.kind === "reload") void replica.reload();
    if (command.kind === "held") void desk?.held(command.changes, command.bouncedMs);
    if (command.kind === "released") void desk?.released(command.change);
    if (command.kind === "answer") questions.answered(command.id, command.value);
    if (command.kind !== "stop") return;
    mirror?.stop();
    void replica.stop({ leave: command.leave }).then(() => {
      desk?.close();
      loop.leave();
      tell({ kind: "stopped" });
      parentPort?.close();
    });
  });
}

/** Null unless an existing Corrosion is the engine. */
async function openMirror(replica: Replica): Promise<CorrosionMirror | null> {
  const { engine, corrosion } = data.effective.config.replica;
  if (engine !== "corrosion" || corrosion === undefined) return null;
  const metrics = MetricSlots.attach(data.metrics).writer(data.bank);
  return await CorrosionMirror.start({
    corrosion,
    rowsOf: async (table) => {
      const rows: MirroredRow[] = [];
      for await (const event of replica.changes({ from: null, tables: [table] })) {
        if (event.kind === "caughtUp") break;
        if (event.kind !== "rows") continue;
        for (const { row } of event.rows) if (row !== null) rows.push(row);
      }
      return rows;
    },
    write: (statements) => replica.publish(statements),
    onCurrent: () => tell({ kind: "synced" }),
    log: createThreadLog(new LogLevelCell(data.logLevel), "replica"),
    metrics: {
      followed: metrics.gauge("patina_corrosion_followed_tables"),
      changes: metrics.counter("patina_corrosion_changes_total"),
      failures: metrics.counter("patina_corrosion_failures_total"),
    },
  });
}

async function openDesk(replica: Replica, witnessPort: MessagePort): Promise<NoticeDesk> {
  const { config } = data.effective;
  const desk = await NoticeDesk.open({
    replica,
    config,
    log: createThreadLog(new LogLevelCell(data.logLevel), "replica"),
    metrics: MetricSlots.attach(data.metrics).writer(data.bank),
    bounces: new PeerBounces(data.bounces),
    onNotice: tell,
  });
  desk.listen(witnessPort);
  // Ends with the store, whose end has an owner of its own.
  desk.follow().catch((error: unknown) => {
    if (!(error instanceof PatinaError)) throw error;
  });
  return desk;
}

/** The level in a filter: Corrosion's may also name its own modules, which are nothing here. */
function levelOf(filter: string): LogLevel {
  const words = filter.split(",").map((word) => word.trim().toLowerCase());
  const level = LEVELS.find((one) => words.includes(one));
  if (level !== undefined) return level;
  throw new PatinaError("ADMIN_REFUSED", `"${filter}" names no level; one of ${LEVELS.join(", ")}`);
}

function tell(event: ReplicaThreadEvent): void {
  parentPort?.postMessage(event);
}

function tellFailure(error: unknown): void {
  const code = error instanceof PatinaError ? error.code : "INTERNAL";
  tell({ kind: "failed", code, message: errorText(error) });
}
