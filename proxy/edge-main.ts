/**
 * Entry of the edge process (and of an agent's): reads the effective config that its argument names,
 * takes the supervisor's sockets, and runs the app until it is told to stop.
 */
import { flushCompileCache } from "node:module";
import { setFlagsFromString } from "node:v8";
import { errorText, PatinaError } from "#base/errors.ts";
import { LogLevelCell, type LogLevel } from "#base/logger.ts";
import { App } from "./app.ts";
import { readEffectiveConfig } from "./effective-config.ts";
import { exitCodeOf } from "./exit-code-of.ts";
import { inheritedFds } from "./inherited-fds.ts";
import { createThreadLog } from "./threads/thread-log.ts";
import { followOrders, type OrderHandlers } from "./upgrade-orders.ts";
import { writeText } from "../watchdog/driver/write-line.ts";

/** Any long time: the timer's existence is what counts. */
const KEEP_ALIVE_MS = 3_600_000;

await main(process.argv[2] ?? "");

async function main(configPath: string): Promise<void> {
  // A flag for this thread, of an agent, would go over what other threads' `resourceLimits` say.
  setFlagsFromString("--max-semi-space-size=0");
  const effective = readEffectiveConfig(configPath);
  const logLevel = new LogLevelCell(effective.config.log.level as LogLevel);
  const log = createThreadLog(logLevel, "main");
  const fail = (error: PatinaError): void => {
    log.error("edge-failed", error.message, { code: error.code });
    process.exit(exitCodeOf(error.code));
  };
  const fds = inheritedFds(process.env["PATINA_FDS"]);
  const app = new App({ effective, fds, log, logLevel, onFailure: fail });
  // An agent has no socket of its own in this thread, and threads that start keep nothing alive.
  setInterval(() => undefined, KEEP_ALIVE_MS);
  let isStopping = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      // The supervisor turns a second signal into a kill.
      if (isStopping) return;
      isStopping = true;
      app.stop().then(
        () => process.exit(0),
        (error: unknown) => fail(new PatinaError("INTERNAL", errorText(error))),
      );
    });
  }
  // The schema alone: the config is read at start.
  process.on("SIGHUP", () => app.reload());
  const failed = (error: unknown): void => {
    // What a stop during the start breaks off is no failure.
    if (isStopping) return;
    fail(
      error instanceof PatinaError
        ? error
        : new PatinaError("INTERNAL", errorText(error), { cause: error }),
    );
  };
  const isStandby = process.env["PATINA_STANDBY"] === "1";
  const begun = isStandby ? app.prepare() : app.start();
  if (fds.beat !== null) followOrders(process.stdin, ordersOf(app, begun, fds.beat), failed);
  try {
    await begun;
    if (isStandby && fds.beat !== null) writeText(fds.beat, "p\n");
    // Node writes its compile cache when a process ends, and a bounced one does not get to it: the
    // next would boot as slowly as this one did.
    flushCompileCache();
  } catch (error) {
    failed(error);
  }
}

/** None is carried out before the process has `begun`. */
function ordersOf(app: App, begun: Promise<void>, beatFd: number): OrderHandlers {
  return {
    takeOver: async () => {
      await begun;
      await app.takeOver();
    },
    handOver: async () => {
      await begun;
      await app.handOver();
      writeText(beatFd, "h\n");
    },
    resume: async () => {
      await begun;
      await app.resume();
    },
  };
}
