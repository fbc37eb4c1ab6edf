/**
 * Decides about each alert: whether it is news, when it is posted to the webhook, and when that is
 * given up.
 *
 * The same kind about the same subject is one alert until it is `resolved` or `repeatMs` have
 * passed: what comes in between is counted. Alerts are posted one at a time in order, each tried
 * again after a delay that doubles and of which up to half is random, so that a fleet does not
 * hammer its receiver in step. A receiver that refuses (most 4xx) is not asked again; one that
 * hangs holds up later alerts and nothing else. The queue is bounded, newest dropped first, because
 * the first alerts tell the cause.
 *
 *   raise ──► waiting ──► posting ── 2xx ──────────────► delivered
 *                            │  ▲
 *                            ▼  │ after a delay
 *                         no answer, 408, 425, 429, 5xx ── attempts over ──► lost
 *
 * What waits is plain data that outlives the process, so an alert may be delivered twice: its id
 * tells. It knows nothing of sockets, files and clocks.
 */
import type { Machine } from "#base/machine.ts";
import type { Alert, AlertKind } from "../types.ts";

/** How loud a kind is, as syslog counts: 2 = critical, 3 = error; and its subject among its fields. */
export const ALERT_KINDS: Readonly<
  Record<AlertKind, { readonly severity: 2 | 3; readonly subject: string | null }>
> = {
  "edge-bounced": { severity: 2, subject: "stall" },
  "crash-loop": { severity: 2, subject: null },
  "edge-frozen": { severity: 2, subject: "stall" },
  "loop-stalled": { severity: 3, subject: "stall" },
  "loop-crashed": { severity: 3, subject: "stall" },
  "certificate-expired": { severity: 3, subject: "file" },
  "replica-stuck": { severity: 3, subject: null },
  "upgrade-rolled-back": { severity: 3, subject: null },
};

/** What a post came to. */
export interface PostOutcome {
  /** HTTP status; null = there was no answer. */
  readonly status: number | null;
  /** What the receiver asked for by `Retry-After`; null = nothing. */
  readonly retryAfterMs: number | null;
  /** For people. */
  readonly problem: string;
}

/** Inputs. */
export type AlertInput =
  /** `time` is ISO 8601, `id` unique for ever. */
  | { readonly kind: "raise"; readonly alert: Alert; readonly id: string; readonly time: string }
  /** The state of things that an alert was about is over: the next one is news. */
  | { readonly kind: "resolved"; readonly alertKind: AlertKind; readonly subject: string }
  | { readonly kind: "posted"; readonly id: string; readonly outcome: PostOutcome }
  | { readonly kind: "tick" };

/** Effects. */
export type AlertOutput =
  /** Write it to the log; a repeat is no news. */
  | { readonly kind: "line"; readonly alert: Alert; readonly isRepeat: boolean }
  /** Post the body as JSON and answer `posted`, however long that takes. */
  | { readonly kind: "post"; readonly id: string; readonly body: string }
  /** An alert will not reach the webhook. */
  | { readonly kind: "lost"; readonly id: string; readonly why: string }
  /** The state has changed and is to be kept. */
  | { readonly kind: "save" };

/** An alert on its way to the webhook. */
export interface WaitingAlert {
  readonly id: string;
  /** JSON. */
  readonly body: string;
}

/** What there has been so far; only grows. */
export interface AlertTotals {
  readonly raised: Readonly<Partial<Record<AlertKind, number>>>;
  readonly repeated: number;
  readonly delivered: number;
  /** Given up on. */
  readonly failed: number;
  /** For want of room. */
  readonly dropped: number;
}

/** Everything that outlives the process. */
export interface AlertState {
  readonly format: 1;
  readonly totals: AlertTotals;
  readonly waiting: readonly WaitingAlert[];
}

/** Rules; all times in milliseconds. */
export interface AlertConfig {
  /** False = there is no webhook. */
  readonly isPosted: boolean;
  /** Stands in every body. */
  readonly host: string;
  readonly attemptsMax: number;
  readonly retryFirstMs: number;
  readonly retryMaxMs: number;
  readonly queuedMax: number;
  readonly repeatMs: number;
  /** The next number in [0, 1). */
  readonly nextRandom: () => number;
}

/** The state of a host that never had an alert. */
export const NO_ALERTS: AlertState = {
  format: 1,
  totals: { raised: {}, repeated: 0, delivered: 0, failed: 0, dropped: 0 },
  waiting: [],
};

/** Alerts from the moment they are raised until they are delivered; see the header. */
export class AlertOutbox implements Machine<AlertInput, AlertOutput> {
  readonly #config: AlertConfig;
  readonly #outbox: AlertOutput[] = [];
  #totals: AlertTotals;
  #waiting: WaitingAlert[];
  /** When the alerts that are still news to nobody were raised, by kind and subject. */
  readonly #raisedMs = new Map<string, number>();
  /** Attempts of the first waiting one that have failed. */
  #failures = 0;
  #isPosting = false;
  /** When the first waiting one is due; Infinity = nothing waits, or it is being posted. */
  #dueMs: number;

  /** What waited when the process before ended is posted first. */
  constructor(config: AlertConfig, state: AlertState = NO_ALERTS) {
    this.#config = config;
    this.#totals = state.totals;
    this.#waiting = config.isPosted ? state.waiting.slice(0, config.queuedMax) : [];
    this.#dueMs = this.#waiting.length > 0 ? 0 : Infinity;
  }

  handle(input: AlertInput, nowMs: number): void {
    switch (input.kind) {
      case "raise":
        return this.#onRaise(input, nowMs);
      case "resolved":
        this.#raisedMs.delete(keyOf(input.alertKind, input.subject));
        return;
      case "posted":
        return this.#onPosted(input.id, input.outcome, nowMs);
      case "tick":
        return this.#postIfDue(nowMs);
    }
  }

  drain(): AlertOutput[] {
    return this.#outbox.splice(0);
  }

  deadlineMs(): number {
    return this.#dueMs;
  }

  /** Plain data to keep. */
  get state(): AlertState {
    return { format: 1, totals: this.#totals, waiting: [...this.#waiting] };
  }

  #onRaise({ alert, id, time }: Extract<AlertInput, { kind: "raise" }>, nowMs: number): void {
    const key = keyOf(alert.kind, alert.subject);
    const before = this.#raisedMs.get(key);
    const isRepeat = before !== undefined && nowMs - before < this.#config.repeatMs;
    this.#outbox.push({ kind: "line", alert, isRepeat }, { kind: "save" });
    if (isRepeat) return this.#count("repeated");
    const { raised } = this.#totals;
    const count = (raised[alert.kind] ?? 0) + 1;
    this.#totals = { ...this.#totals, raised: { ...raised, [alert.kind]: count } };
    this.#note(key, nowMs);
    if (!this.#config.isPosted) return;
    if (this.#waiting.length >= this.#config.queuedMax) {
      this.#count("dropped");
      this.#outbox.push({ kind: "lost", id, why: "too many alerts wait for the webhook" });
      return;
    }
    this.#waiting.push({ id, body: this.#body(alert, { id, time }) });
    if (this.#waiting.length === 1) this.#dueMs = nowMs;
    this.#postIfDue(nowMs);
  }

  #onPosted(id: string, { status, retryAfterMs, problem }: PostOutcome, nowMs: number): void {
    const [first] = this.#waiting;
    // An answer to what is not being posted is none.
    if (first === undefined || first.id !== id || !this.#isPosting) return;
    this.#isPosting = false;
    if (status !== null && status >= 200 && status < 300) return this.#next("delivered", nowMs);
    this.#failures += 1;
    const isRefused = status !== null && !isWorthRetry(status);
    if (isRefused || this.#failures >= this.#config.attemptsMax) {
      this.#outbox.push({ kind: "lost", id, why: problem });
      return this.#next("failed", nowMs);
    }
    this.#dueMs = nowMs + this.#delayMs(retryAfterMs);
  }

  #next(outcome: "delivered" | "failed", nowMs: number): void {
    this.#count(outcome);
    this.#waiting.shift();
    this.#failures = 0;
    this.#dueMs = this.#waiting.length > 0 ? nowMs : Infinity;
    this.#outbox.push({ kind: "save" });
    this.#postIfDue(nowMs);
  }

  #postIfDue(nowMs: number): void {
    const [first] = this.#waiting;
    if (first === undefined || this.#isPosting || nowMs < this.#dueMs) return;
    this.#isPosting = true;
    this.#dueMs = Infinity;
    this.#outbox.push({ kind: "post", id: first.id, body: first.body });
  }

  #delayMs(retryAfterMs: number | null): number {
    const { retryFirstMs, retryMaxMs, nextRandom } = this.#config;
    const wholeMs = Math.min(retryFirstMs * 2 ** (this.#failures - 1), retryMaxMs);
    const delayMs = wholeMs * (1 - nextRandom() / 2);
    return Math.max(delayMs, Math.min(retryAfterMs ?? 0, retryMaxMs));
  }

  #body(alert: Alert, { id, time }: { readonly id: string; readonly time: string }): string {
    const { host } = this.#config;
    const { kind, subject, msg, fields } = alert;
    const { severity } = ALERT_KINDS[kind];
    // Fields come first: they must not take the place of what every receiver relies on.
    const texts = { subject: subject.slice(0, TEXT_MAX), msg: msg.slice(0, TEXT_MAX) };
    const frame = { id, time, host, event: kind, severity, ...texts };
    const { dropped: alertsDropped } = this.#totals;
    const body = JSON.stringify({ ...fields, ...frame, alertsDropped });
    return body.length <= BODY_MAX
      ? body
      : JSON.stringify({ ...frame, alertsDropped, isCut: true });
  }

  #note(key: string, nowMs: number): void {
    this.#raisedMs.delete(key);
    const [oldest] = this.#raisedMs.keys();
    if (this.#raisedMs.size >= SUBJECTS_MAX && oldest !== undefined) this.#raisedMs.delete(oldest);
    this.#raisedMs.set(key, nowMs);
  }

  #count(total: "repeated" | "delivered" | "failed" | "dropped"): void {
    this.#totals = { ...this.#totals, [total]: this.#totals[total] + 1 };
  }
}

/** Checks an alert that another process sent; null = it is none. */
export function readAlert(value: unknown): Alert | null {
  if (!isObject(value)) return null;
  const { kind, subject, msg, fields } = value;
  if (typeof kind !== "string" || !Object.hasOwn(ALERT_KINDS, kind)) return null;
  if (typeof subject !== "string" || typeof msg !== "string" || !isObject(fields)) return null;
  return { kind: kind as AlertKind, subject, msg, fields };
}

/** Checks a state as it was kept; null = it is none. */
export function readAlertState(value: unknown): AlertState | null {
  if (!isObject(value) || value["format"] !== 1) return null;
  const { totals, waiting } = value;
  if (!isObject(totals) || !isObject(totals["raised"]) || !Array.isArray(waiting)) return null;
  const { repeated, delivered, failed, dropped } = totals;
  const numbers = [repeated, delivered, failed, dropped, ...Object.values(totals["raised"])];
  if (!numbers.every((one) => Number.isSafeInteger(one) && Number(one) >= 0)) return null;
  const areWhole = waiting.every(
    (one: unknown) =>
      isObject(one) && typeof one["id"] === "string" && typeof one["body"] === "string",
  );
  return areWhole ? (value as unknown as AlertState) : null;
}

/**
 * The work in progress in words, from a decoded breadcrumb: its scalars in their order, `what`
 * first. Null = there was none.
 */
export function workText(breadcrumb: unknown): string | null {
  if (typeof breadcrumb === "string") return breadcrumb.slice(0, WORK_MAX);
  if (!isObject(breadcrumb)) return null;
  const { what, ...rest } = breadcrumb;
  const parts = Object.entries(rest)
    .filter(([, one]) => typeof one === "string" || typeof one === "number")
    .map(([name, one]) => `${name} ${String(one)}`);
  const text = [...(typeof what === "string" ? [what] : []), parts.join(", ")].join(": ");
  return text === "" ? null : text.slice(0, WORK_MAX);
}

/** Too early, too often, or the receiver's own trouble. Others will not pass by themselves. */
function isWorthRetry(status: number): boolean {
  return status >= 500 || status === 408 || status === 425 || status === 429;
}

function keyOf(kind: AlertKind, subject: string): string {
  return `${kind}\n${subject}`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** Characters; receivers take that much, and breadcrumbs are far smaller. */
const BODY_MAX = 16_384;
const TEXT_MAX = 1_000;
/** Characters of a line that people read. */
const WORK_MAX = 300;
/** Subjects of which a repeat is known as one. */
const SUBJECTS_MAX = 256;
