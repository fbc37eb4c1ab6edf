/**
 * Alerts: one JSON line on stderr, and the same object to a webhook.
 *
 * The webhook is tried three times with a time limit; at most sixteen alerts wait for it, and what
 * is beyond is counted in the next one. A webhook that hangs costs nothing but itself.
 */
import type { ClientRequest, RequestOptions } from "node:http";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";

/** An alert's fields, beside `event` and `msg`. */
export type AlertFields = Readonly<Record<string, unknown>>;

/** Where alerts go. */
export interface AlertOptions {
  readonly log: Logger;
  /** `http:` or `https:` URL; null = stderr only. */
  readonly webhook: string | null;
  /** Name of this host in the webhook's body. */
  readonly hostName: string;
}

/** Sends alerts in order. */
export class Alerts {
  readonly #options: AlertOptions;
  readonly #waiting: object[] = [];
  #dropped = 0;
  /** Settles when nothing waits any more. */
  #sending: Promise<void> = Promise.resolve();
  #isSending = false;

  constructor(options: AlertOptions) {
    this.#options = options;
  }

  /** Writes the line at once and queues the post. */
  send(event: string, msg: string, fields: AlertFields): void {
    const { log, webhook, hostName } = this.#options;
    log.error(event, msg, fields);
    if (webhook === null) return;
    if (this.#waiting.length >= WAITING_MAX) {
      this.#dropped += 1;
      return;
    }
    const time = new Date().toISOString();
    this.#waiting.push({
      time,
      host: hostName,
      event,
      msg,
      ...fields,
      alertsDropped: this.#dropped,
    });
    this.#dropped = 0;
    if (!this.#isSending) this.#sending = this.#sendAll(webhook);
  }

  /** Waits for what is queued, for `limitMs` at most: the process is about to end. */
  async settle(limitMs: number): Promise<void> {
    const limit = new Promise((resolve) => setTimeout(resolve, limitMs).unref());
    await Promise.race([this.#sending, limit]);
  }

  async #sendAll(webhook: string): Promise<void> {
    this.#isSending = true;
    for (let alert = this.#waiting.shift(); alert !== undefined; alert = this.#waiting.shift()) {
      await this.#sendOne(webhook, JSON.stringify(alert));
    }
    this.#isSending = false;
  }

  async #sendOne(webhook: string, body: string): Promise<void> {
    let problem = "";
    for (const pauseMs of PAUSES_MS) {
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      try {
        return await post(webhook, body);
      } catch (error) {
        problem = errorText(error);
      }
    }
    this.#options.log.warn?.("webhook-failed", "an alert did not reach the webhook", { problem });
  }
}

/** Posts JSON; resolves on any 2xx. */
async function post(url: string, body: string): Promise<void> {
  // Loaded with the first alert: a supervisor that never alerts starts faster.
  const { request } = url.startsWith("https:")
    ? await import("node:https")
    : await import("node:http");
  const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
  const options: RequestOptions = {
    method: "POST",
    headers,
    signal: AbortSignal.timeout(POST_LIMIT_MS),
  };
  await new Promise<void>((resolve, reject) => {
    const call: ClientRequest = request(url, options, (response) => {
      const status = response.statusCode ?? 0;
      response.resume();
      response.once("error", reject);
      if (status >= 200 && status < 300) resolve();
      else reject(new Error(`the webhook answered ${status}`));
    });
    call.once("error", reject);
    call.end(body);
  });
}

/** Before each try. */
const PAUSES_MS = [0, 1000, 5000];
const POST_LIMIT_MS = 5000;
/** More alerts than this within a minute say nothing new. */
const WAITING_MAX = 16;
