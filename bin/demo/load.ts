/**
 * Steady traffic on the PoPs: an open-loop generator (requests leave at their rate whether or not
 * earlier ones were answered) that counts every answer and every failure.
 *
 * A failure is anything but a 200 from a machine: refused connections are counted apart, because a
 * bounce must cause none.
 */
import { Pool } from "undici";
import { errorText } from "#base/errors.ts";

/** What happened to the requests of one PoP. Latencies are milliseconds. */
export interface TrafficCounts {
  sent: number;
  answered: number;
  /** TCP connect refused. */
  refused: number;
  /** Any other failure: reset, timeout, a status other than 200. */
  failed: number;
  /** Failures by what was seen: `503 ROUTE_NO_APP`, `ECONNRESET`. Bounded by the kinds there are. */
  readonly failures: Map<string, number>;
  readonly answersByMachine: Map<string, number>;
}

/** One answered request. */
export interface Answer {
  readonly machineId: string;
  readonly region: string;
  readonly latencyMs: number;
  /** Monotonic ms at which it was sent. */
  readonly sentMs: number;
}

/** Steady traffic on one PoP. */
export class Traffic {
  readonly pop: string;
  /** Since the start. */
  readonly total = emptyCounts();
  /** Since the last `startWindow`. */
  window = emptyCounts();
  /** The last latencies, for a median. */
  readonly #latencies: number[] = [];
  readonly #pool: Pool;
  readonly #host: string;
  readonly #intervalMs: number;
  readonly #waiting = new Set<{
    wanted: (answer: Answer) => boolean;
    done: (at: Answer) => void;
  }>();
  #timer: NodeJS.Timeout | null = null;
  #startedMs = 0;
  #launched = 0;
  #inFlight = 0;

  /** `ratePerSecond` requests leave in steps of 5 ms. `host` is the Host header. */
  constructor(options: { pop: string; origin: string; host: string; ratePerSecond: number }) {
    this.pop = options.pop;
    this.#host = options.host;
    this.#intervalMs = 1000 / options.ratePerSecond;
    this.#pool = new Pool(options.origin, {
      connections: 128,
      pipelining: 1,
      connectTimeout: 10_000,
      headersTimeout: 15_000,
      bodyTimeout: 15_000,
    });
  }

  /** Begins to send. */
  start(): void {
    this.#startedMs = performance.now();
    this.#timer = setInterval(() => this.#launchDue(), 5);
  }

  /** Stops sending, waits for what is in flight, closes the connections. */
  async stop(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
    await this.#pool.close();
  }

  /** Counts from zero in `window`. */
  startWindow(): void {
    this.window = emptyCounts();
  }

  /** The next answer that satisfies `wanted`, or null after `limitMs`. */
  nextAnswer(wanted: (answer: Answer) => boolean, limitMs: number): Promise<Answer | null> {
    return new Promise((resolve) => {
      const entry = {
        wanted,
        done: (answer: Answer) => {
          clearTimeout(timeout);
          this.#waiting.delete(entry);
          resolve(answer);
        },
      };
      const timeout = setTimeout(() => {
        this.#waiting.delete(entry);
        resolve(null);
      }, limitMs);
      this.#waiting.add(entry);
    });
  }

  /** Median latency of the last 500 answers in ms; NaN before the first. */
  medianMs(): number {
    const sorted = this.#latencies.toSorted((left, right) => left - right);
    return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  #launchDue(): void {
    const due = Math.floor((performance.now() - this.#startedMs) / this.#intervalMs);
    // After a pause of this process the missed ones leave at once, as an open loop must; the bound
    // keeps a long pause from becoming a flood.
    for (let burst = 0; this.#launched < due && burst < BURST_MAX; burst++) {
      this.#launched++;
      void this.#request();
    }
    this.#launched = Math.max(this.#launched, due - BURST_MAX);
  }

  async #request(): Promise<void> {
    const sentMs = performance.now();
    const window = this.window;
    this.total.sent++;
    window.sent++;
    this.#inFlight++;
    try {
      const response = await this.#pool.request({
        method: "GET",
        path: "/",
        headers: { host: this.#host },
      });
      const body = await response.body.text();
      if (response.statusCode !== 200) {
        const code = response.headers["patina-error"];
        this.#fail(window, `${response.statusCode} ${String(code ?? "")}`.trim());
        return;
      }
      this.#answer(window, sentMs, body);
    } catch (error) {
      const code = (error as { code?: unknown }).code;
      this.#fail(window, typeof code === "string" ? code : errorText(error));
    } finally {
      this.#inFlight--;
    }
  }

  #answer(window: TrafficCounts, sentMs: number, body: string): void {
    const { machine, region } = JSON.parse(body) as { machine: string; region: string };
    const latencyMs = performance.now() - sentMs;
    for (const counts of [this.total, window]) {
      counts.answered++;
      counts.answersByMachine.set(machine, (counts.answersByMachine.get(machine) ?? 0) + 1);
    }
    this.#latencies.push(latencyMs);
    if (this.#latencies.length > LATENCIES_KEPT) this.#latencies.shift();
    const answer = { machineId: machine, region, latencyMs, sentMs };
    for (const entry of this.#waiting) if (entry.wanted(answer)) entry.done(answer);
  }

  #fail(window: TrafficCounts, what: string): void {
    for (const counts of [this.total, window]) {
      if (what === "ECONNREFUSED") counts.refused++;
      else counts.failed++;
      counts.failures.set(what, (counts.failures.get(what) ?? 0) + 1);
    }
  }
}

function emptyCounts(): TrafficCounts {
  return {
    sent: 0,
    answered: 0,
    refused: 0,
    failed: 0,
    failures: new Map(),
    answersByMachine: new Map(),
  };
}

const BURST_MAX = 200;
const LATENCIES_KEPT = 500;
