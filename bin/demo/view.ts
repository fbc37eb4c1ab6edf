/**
 * What the demo shows: a table that renews itself on a terminal, plain lines elsewhere.
 */
import ansis from "ansis";
import Table from "cli-table3";
import { createLogUpdate } from "log-update";
import { request } from "undici";
import type { Traffic } from "./load.ts";
import type { Platform } from "./platform.ts";
import type { StepResult } from "./tour.ts";

/** Shows events, steps and traffic. */
export class View {
  readonly #startedMs = performance.now();
  readonly #events: string[] = [];
  readonly #isLive = process.stdout.isTTY;
  readonly #update = createLogUpdate(process.stdout);
  #timer: NodeJS.Timeout | null = null;
  #sentBefore = new Map<string, number>();
  /** What each PoP's own metrics say; absent while it is away. */
  readonly #figuresByPop = new Map<string, { members: string; machines: string }>();
  #isAsking = false;

  /** Begins the live table, where there is a terminal. */
  start(platform: Platform, traffic: () => Iterable<Traffic>): void {
    if (!this.#isLive) return;
    this.#timer = setInterval(() => {
      void this.#ask(platform, [...traffic()]);
      this.#render(platform, [...traffic()]);
    }, RENEW_MS);
  }

  /** Ends the live table; what it showed last stays. */
  stop(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
    this.#update.done();
  }

  /** One line of what happened. */
  event(line: string): void {
    const at = ((performance.now() - this.#startedMs) / 1000).toFixed(1).padStart(5);
    this.#print(`${ansis.dim(`${at} s`)}  ${line}`);
  }

  /** A step's outcome. */
  step(result: StepResult): void {
    const hasPassed = result.faults.length === 0;
    const mark = hasPassed ? ansis.green("ok  ") : ansis.red("FAIL");
    this.#print(`${mark} ${ansis.bold(result.title)}`);
    for (const fact of result.facts) this.#print(`       ${fact}`);
    for (const fault of result.faults) this.#print(`       ${ansis.red(fault)}`);
  }

  /** A line that stays. */
  line(text: string): void {
    this.#print(text);
  }

  #print(line: string): void {
    if (this.#timer === null) {
      process.stdout.write(`${line}\n`);
      return;
    }
    this.#events.push(line);
    if (this.#events.length > EVENTS_SHOWN) this.#events.shift();
  }

  /** Members and machines as each PoP sees them, from its metrics. */
  async #ask(platform: Platform, traffic: readonly Traffic[]): Promise<void> {
    if (this.#isAsking) return;
    this.#isAsking = true;
    await Promise.all(
      traffic.map(async ({ pop }) => {
        const text = await metricsOf(platform.host(pop).metricsPort);
        if (text === null) {
          this.#figuresByPop.delete(pop);
          return;
        }
        this.#figuresByPop.set(pop, {
          members: /^patina_swim_members (\d+)/m.exec(text)?.[1] ?? "-",
          machines: /^patina_route_machines (\d+)/m.exec(text)?.[1] ?? "-",
        });
      }),
    );
    this.#isAsking = false;
  }

  #render(platform: Platform, traffic: readonly Traffic[]): void {
    const table = new Table({
      head: [
        "PoP",
        "listens on",
        "members",
        "machines",
        "requests/s",
        "median",
        "answers from",
        "failed",
        "refused",
      ],
      style: { head: ["cyan"] },
    });
    for (const one of traffic) {
      const { httpPort } = platform.host(one.pop);
      const before = this.#sentBefore.get(one.pop) ?? one.total.sent;
      this.#sentBefore.set(one.pop, one.total.sent);
      table.push([
        one.pop,
        `127.0.0.1:${httpPort}`,
        this.#figuresByPop.get(one.pop)?.members ?? "-",
        this.#figuresByPop.get(one.pop)?.machines ?? "-",
        Math.round(((one.total.sent - before) * 1000) / RENEW_MS),
        `${one.medianMs().toFixed(0)} ms`,
        [...one.window.answersByMachine.keys()].join(" "),
        one.total.failed,
        one.total.refused,
      ]);
    }
    this.#update(`${table.toString()}\n${this.#events.join("\n")}`);
  }
}

/** The text of a PoP's metrics; null while nobody answers. */
async function metricsOf(port: number): Promise<string | null> {
  try {
    const response = await request(`http://127.0.0.1:${port}/metrics`, {
      headersTimeout: 1_000,
      bodyTimeout: 1_000,
    });
    return await response.body.text();
  } catch (error) {
    // It is being started, or bounced.
    if (error instanceof Error) return null;
    throw error;
  }
}

const RENEW_MS = 500;
const EVENTS_SHOWN = 24;
