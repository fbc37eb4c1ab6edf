/**
 * Alerts: one JSON line on stderr, and the same object to a webhook. `AlertOutbox` decides, this
 * posts with Node's own `fetch`, keeps what waits and what was counted in the state folder, and
 * says what was lost.
 *
 * It runs in the supervisor, which outlives the edge that is stuck. Nobody waits for a post: a
 * webhook that hangs is given up by its time limit and costs nothing but itself.
 */
import { readFileSync, renameSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import {
  ALERT_KINDS,
  type AlertInput,
  AlertOutbox,
  type AlertOutput,
  type AlertState,
  NO_ALERTS,
  type PostOutcome,
} from "../../core/alert-outbox.ts";
import { alertFile, parseAlertState } from "../../driver/alert-file.ts";
import type { Alert, AlertKind } from "../../types.ts";
import type { AlertRules } from "../supervisor-config.ts";
import { MachineLoop } from "./machine-loop.ts";

/** Where alerts go. */
export interface AlertOptions {
  /** By severity: 2 = critical, 3 = error. Repeats and losses are warnings of the latter. */
  readonly logs: Readonly<Record<2 | 3, Logger>>;
  readonly stateFolder: string;
  /** Name of this host in the webhook's body. */
  readonly hostName: string;
  readonly rules: AlertRules;
}

/** Sends alerts in order. */
export class Alerts {
  readonly #options: AlertOptions;
  readonly #outbox: AlertOutbox;
  readonly #loop: MachineLoop<AlertInput, AlertOutput>;
  #raised = 0;
  /** The last write of the state file; each follows the one before. */
  #saving: Promise<void> = Promise.resolve();
  #isSaveQueued = false;
  /** Wakes who waits for nothing to be left. */
  #onQuiet: () => void = () => undefined;

  constructor(options: AlertOptions) {
    const { hostName, rules } = options;
    this.#options = options;
    const config = {
      isPosted: rules.webhook !== null,
      host: hostName,
      attemptsMax: rules.attemptsMax,
      retryFirstMs: rules.retryFirstMs,
      retryMaxMs: rules.retryMaxMs,
      queuedMax: rules.queuedMax,
      repeatMs: rules.repeatMs,
      nextRandom: Math.random,
    };
    this.#outbox = new AlertOutbox(config, readState(options));
    const perform = (output: AlertOutput): void => this.#perform(output);
    this.#loop = new MachineLoop(this.#outbox, perform, { keepsAlive: false });
    this.#loop.run({ kind: "tick" });
  }

  /** Writes the line at once and queues the post. */
  raise(alert: Alert): void {
    const time = new Date().toISOString();
    this.#raised += 1;
    const id = `${time.replaceAll(/[-:.]/g, "")}-${process.pid}-${this.#raised}`;
    this.#loop.run({ kind: "raise", alert, id, time });
  }

  /** What an alert was about is over; the next of its kind and subject is news. */
  resolve(alertKind: AlertKind, subject: string): void {
    this.#loop.run({ kind: "resolved", alertKind, subject });
  }

  /**
   * Waits for what is queued, for `limitMs` at most: the process is about to end. What is left then
   * is posted by the next one.
   */
  async settle(limitMs: number): Promise<void> {
    const limit = new Promise<void>((resolve) => setTimeout(resolve, limitMs).unref());
    const quiet = new Promise<void>((resolve) => (this.#onQuiet = resolve));
    this.#tellQuiet();
    await Promise.race([quiet, limit]);
    await Promise.race([this.#saving, limit]);
    this.#loop.stop();
  }

  #perform(output: AlertOutput): void {
    const { logs } = this.#options;
    switch (output.kind) {
      case "line": {
        const { kind, msg, fields } = output.alert;
        if (output.isRepeat) logs[3].warn?.(kind, msg, { ...fields, isRepeat: true });
        else logs[ALERT_KINDS[kind].severity].error(kind, msg, fields);
        return;
      }
      case "post":
        void this.#post(output.id, output.body);
        return;
      case "lost": {
        const fields = { alert: output.id, problem: output.why };
        logs[3].warn?.("webhook-failed", "an alert did not reach the webhook", fields);
        return;
      }
      case "save":
        this.#save();
        return this.#tellQuiet();
    }
  }

  async #post(id: string, body: string): Promise<void> {
    const { webhook, timeoutMs } = this.#options.rules;
    const outcome = await post(webhook ?? "", body, timeoutMs);
    this.#loop.run({ kind: "posted", id, outcome });
  }

  /** One write at a time; several changes meanwhile are one write. */
  #save(): void {
    if (this.#isSaveQueued) return;
    this.#isSaveQueued = true;
    this.#saving = this.#saving.then(async () => {
      this.#isSaveQueued = false;
      const file = alertFile(this.#options.stateFolder);
      try {
        await writeFile(`${file}.tmp`, `${JSON.stringify(this.#outbox.state)}\n`, { mode: 0o640 });
        await rename(`${file}.tmp`, file);
      } catch (error) {
        const fields = { file, error: errorText(error) };
        const msg = "what waits for the webhook would not outlive this process";
        this.#options.logs[3].warn?.("alerts-not-saved", msg, fields);
      }
    });
  }

  #tellQuiet(): void {
    if (this.#outbox.state.waiting.length === 0) this.#onQuiet();
  }
}

/** A damaged file is set aside: what was on its way is lost, and said to be. */
function readState({ stateFolder, logs }: AlertOptions): AlertState {
  const file = alertFile(stateFolder);
  try {
    return parseAlertState(readFileSync(file, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return NO_ALERTS;
    const fields = { file, error: errorText(error) };
    logs[3].warn?.("alerts-file-damaged", "waiting alerts are lost; the file is set aside", fields);
    setAside(file);
    return NO_ALERTS;
  }
}

function setAside(file: string): void {
  try {
    renameSync(file, `${file}.damaged`);
  } catch {
    // The next state is written over it.
  }
}

/** Posts JSON; never rejects. */
async function post(webhook: string, body: string, timeoutMs: number): Promise<PostOutcome> {
  try {
    const url = new URL(webhook);
    const { username, password } = url;
    url.username = "";
    url.password = "";
    const response = await fetch(url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(username !== "" && { authorization: basic(username, password) }),
      },
      body,
      // Elsewhere is not where the operator wanted them.
      redirect: "manual",
      signal: AbortSignal.timeout(timeoutMs),
    });
    const { status } = response;
    const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN);
    await response.body?.cancel();
    const retryAfterMs = Number.isFinite(retryAfter) ? retryAfter * 1000 : null;
    return { status, retryAfterMs, problem: `the webhook answered ${status}` };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return { status: null, retryAfterMs: null, problem: errorText(cause) };
  }
}

/** `fetch` refuses a URL with credentials. */
function basic(username: string, password: string): string {
  const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return `Basic ${Buffer.from(pair).toString("base64")}`;
}
