/**
 * Tells the service manager how the service is, through systemd's own program `systemd-notify`: a
 * datagram to a Unix socket is what Node cannot send. One notice after the other, in order; a sign of
 * life is left out while another notice is on its way. Without `NOTIFY_SOCKET` nothing is sent.
 */
import { execFile } from "node:child_process";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import { type Environment, watchdogPeriodMs } from "../../core/systemd.ts";

/** The notices of one process. */
export class ServiceNotices {
  readonly #environment: Environment;
  readonly #log: Logger;
  readonly #isHeard: boolean;
  #sending: Promise<void> = Promise.resolve();
  #waiting = 0;
  #isFailing = false;
  #timer: NodeJS.Timeout | undefined;

  /** `environment` as the service manager made it. */
  constructor(environment: Environment, log: Logger) {
    this.#environment = environment;
    this.#log = log;
    this.#isHeard = (environment["NOTIFY_SOCKET"] ?? "") !== "";
  }

  /** Gives signs of life from here on, where they are asked for. */
  start(): void {
    const periodMs = watchdogPeriodMs(this.#environment, process.pid);
    if (periodMs === null) return;
    this.#timer = setInterval(() => {
      if (this.#waiting === 0) this.tell("WATCHDOG=1");
    }, periodMs);
  }

  /** Sends assignments as sd_notify(3) knows them, after those before. */
  tell(...assignments: readonly string[]): void {
    if (!this.#isHeard) return;
    this.#waiting += 1;
    this.#sending = this.#sending.then(async () => {
      await this.#send(assignments);
      this.#waiting -= 1;
    });
  }

  /** What goes on is a reload, from now until the next `READY=1`. */
  tellReloading(): void {
    // systemd wants to know since when, by the clock that Node's is too.
    this.tell("RELOADING=1", `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  /** Ends signs of life, and waits for what is being sent for `limitMs` at most. */
  async settle(limitMs: number): Promise<void> {
    clearInterval(this.#timer);
    const limit = new Promise<void>((resolve) => setTimeout(resolve, limitMs).unref());
    await Promise.race([this.#sending, limit]);
  }

  async #send(assignments: readonly string[]): Promise<void> {
    const env = { ...process.env, ...this.#environment };
    try {
      await new Promise<void>((resolve, reject) => {
        execFile("systemd-notify", assignments, { env, timeout: SEND_LIMIT_MS }, (error) =>
          error === null ? resolve() : reject(error),
        );
      });
      this.#isFailing = false;
    } catch (error) {
      const msg = `the service manager was not told: ${errorText(error)}`;
      if (!this.#isFailing) this.#log.warn?.("notice-failed", msg, { assignments });
      this.#isFailing = true;
    }
  }
}

/**
 * Takes what the service manager said out of the environment, so that no child process believes that
 * it was meant.
 */
export function takeServiceEnvironment(environment: NodeJS.ProcessEnv): Environment {
  const taken: Record<string, string | undefined> = {};
  for (const name of NAMES) {
    if (environment[name] !== undefined) taken[name] = environment[name];
    delete environment[name];
  }
  return taken;
}

const NAMES = [
  "LISTEN_PID",
  "LISTEN_FDS",
  "LISTEN_FDNAMES",
  "NOTIFY_SOCKET",
  "WATCHDOG_USEC",
  "WATCHDOG_PID",
];
const SEND_LIMIT_MS = 5000;
