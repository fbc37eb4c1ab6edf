/**
 * Keeps the tables that routing reads as queries of an existing Corrosion say, so that an edge needs no
 * replica in that cluster.
 *
 * One subscription a table: first all rows, then changes; a stream that ends is resumed at the change
 * that was had last, and asked for whole again where that is not possible or a change was missed. An API that
 * does not subscribe to a query is asked it from time to time. One that is away changes nothing: the tables
 * stay as they are, and the pauses between attempts grow, with jitter.
 */
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import { request } from "undici";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricCounter, MetricGauge } from "#base/metric-slots.ts";
import type { CorrosionConfig } from "../../config.ts";
import type { Statement } from "../../types.ts";
import { parseJson, readSqlValue } from "../api/json.ts";
import { FollowedQuery, type QueryLine } from "./followed-query.ts";
import { MIRRORED, MirroredTable, type MirroredRow } from "./mirrored-table.ts";

/** What a mirror works with. */
export interface CorrosionMirrorOptions {
  readonly corrosion: CorrosionConfig;
  /** Rows that a table has. */
  readonly rowsOf: (table: string) => Promise<readonly MirroredRow[]>;
  /** One transaction; false = not now. Rejects when it cannot be carried out. */
  readonly write: (statements: readonly Statement[]) => Promise<boolean>;
  /** Every table was had whole, and is written. */
  readonly onCurrent: () => void;
  readonly log: Logger;
  readonly metrics: {
    readonly followed: MetricGauge;
    readonly changes: MetricCounter;
    readonly failures: MetricCounter;
  };
  /** From 0 to 1; for the jitter of pauses. Default `Math.random`. */
  readonly random?: () => number;
}

interface Following {
  readonly sql: string;
  readonly table: MirroredTable;
  query: FollowedQuery;
  /** Of the subscription; null = to be made. */
  id: string | null;
  isWhole: boolean;
  isLive: boolean;
  failures: number;
}

/** One per replica. */
export class CorrosionMirror {
  readonly #options: CorrosionMirrorOptions;
  readonly #stopped = new AbortController();
  readonly #following: Following[] = [];
  #isWriting = false;
  #isCurrent = false;

  private constructor(options: CorrosionMirrorOptions) {
    this.#options = options;
  }

  /** Begins to follow; rejects when the own tables cannot be read. */
  static async start(options: CorrosionMirrorOptions): Promise<CorrosionMirror> {
    const mirror = new CorrosionMirror(options);
    for (const spec of MIRRORED) {
      const sql = options.corrosion.sql[spec.name as keyof CorrosionConfig["sql"]];
      if (sql === undefined) continue;
      const table = new MirroredTable(spec, await options.rowsOf(spec.name));
      const query = new FollowedQuery();
      const none = { id: null, isWhole: false, isLive: false, failures: 0 };
      mirror.#following.push({ sql, table, query, ...none });
    }
    for (const one of mirror.#following) void mirror.#follow(one);
    return mirror;
  }

  /** Ends all streams. */
  stop(): void {
    this.#stopped.abort();
  }

  async #follow(one: Following): Promise<void> {
    while (!this.#isStopped) {
      let pauseMs = 0;
      try {
        await this.#stream(one);
        throw new Error("the stream ended");
      } catch (error) {
        if (this.#isStopped) return;
        pauseMs = await this.#failed(one, error);
      }
      this.#setLive(one, false);
      await this.#pause(pauseMs);
    }
  }

  /** Until the stream ends. */
  async #stream(one: Following): Promise<void> {
    const from = one.query.changeId;
    const isResumed = one.id !== null && from !== null && one.isWhole;
    const path = isResumed ? `/v1/subscriptions/${one.id}?from=${from}` : "/v1/subscriptions";
    const answer = await this.#ask(path, isResumed ? null : one.sql);
    if (!isResumed) one.query = new FollowedQuery();
    const id = answer.headers["corro-query-id"];
    one.id = typeof id === "string" ? id : null;
    if (isResumed) this.#setLive(one, true);
    await this.#read(one, answer.body);
  }

  /** Asks the query once. */
  async #poll(one: Following): Promise<void> {
    const answer = await this.#ask("/v1/queries", one.sql);
    one.query = new FollowedQuery();
    one.id = null;
    await this.#read(one, answer.body);
  }

  async #read(one: Following, body: NodeJS.ReadableStream): Promise<void> {
    const lines = createInterface({ input: body });
    for await (const text of lines) {
      if (this.#isStopped) return;
      const taken = one.query.take(lineOf(text));
      if (taken.kind === "nothing") continue;
      if (taken.kind === "broken") {
        // Whole, the next time.
        one.id = null;
        throw new Error(taken.reason);
      }
      if (taken.kind === "whole") {
        const problem = one.table.whole(one.query.columns, one.query.rows);
        if (problem !== null) throw new Error(problem);
        one.isWhole = true;
        this.#setLive(one, one.id !== null);
      } else {
        one.table.changed(taken.before, taken.after);
        this.#options.metrics.changes.add(1);
      }
      void this.#write();
    }
  }

  async #ask(
    path: string,
    sql: string | null,
  ): Promise<{ headers: Record<string, unknown>; body: NodeJS.ReadableStream }> {
    const { api, token } = this.#options.corrosion;
    const answer = await request(`${api.replace(/\/$/, "")}${path}`, {
      method: sql === null ? "GET" : "POST",
      headers: {
        ...(sql === null ? {} : { "content-type": "application/json" }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(sql === null ? {} : { body: JSON.stringify(sql) }),
      signal: this.#stopped.signal,
      // A table may not change for hours.
      bodyTimeout: 0,
    });
    if (answer.statusCode === 200) return answer;
    const text = (await answer.body.text()).trim().slice(0, REASON_CHARACTERS_MAX);
    throw new Refusal(`${path} is answered ${answer.statusCode} ${text}`);
  }

  /** What to do about it; how long to wait, in ms. */
  async #failed(one: Following, error: unknown): Promise<number> {
    const { corrosion, log, metrics, random = Math.random } = this.#options;
    const { name } = one.table.spec;
    metrics.failures.add(1);
    if (error instanceof Refusal && one.id !== null) {
      // It does not know the subscription, or not that change of it, any more.
      one.id = null;
      return 0;
    }
    one.failures += 1;
    // Once, then at powers of ten.
    if (/^10*$/.test(String(one.failures))) {
      const text = `the table stays as it is: ${errorText(error)}`;
      log.warn?.("corrosion-not-followed", text, { table: name, failures: one.failures });
    }
    if (error instanceof Refusal) {
      try {
        await this.#poll(one);
        return corrosion.poll_secs * 1_000;
      } catch (thrown) {
        if (this.#isStopped) return 0;
        log.debug?.("corrosion-poll-failed", errorText(thrown), { table: name });
      }
    }
    const waitMs = Math.min(WAIT_MAX_MS, WAIT_FIRST_MS * 2 ** Math.min(one.failures, 20));
    return waitMs * (0.5 + random() / 2);
  }

  /** What the tables are behind, in batches, one after the other. Never rejects. */
  async #write(): Promise<void> {
    if (this.#isWriting) return;
    this.#isWriting = true;
    try {
      for (let one = this.#behind(); one !== undefined; one = this.#behind()) {
        if (!(await this.#writeSome(one))) await this.#pause(WRITE_PAUSE_MS);
        if (this.#isStopped) return;
      }
    } finally {
      this.#isWriting = false;
    }
    if (this.#isCurrent || !this.#following.every(({ isWhole }) => isWhole)) return;
    this.#isCurrent = true;
    this.#options.onCurrent();
  }

  #behind(): Following | undefined {
    return this.#following.find(({ table }) => table.isBehind);
  }

  async #writeSome({ table }: Following): Promise<boolean> {
    const { write, log } = this.#options;
    const { statements, done } = table.take(BATCH_KEYS);
    try {
      if (statements.length > 0 && !(await write(statements))) return false;
      done();
      return true;
    } catch (error) {
      log.error("corrosion-not-written", errorText(error), { table: table.spec.name });
      return false;
    }
  }

  #setLive(one: Following, isLive: boolean): void {
    if (one.isLive === isLive) return;
    one.isLive = isLive;
    if (isLive) {
      const { log } = this.#options;
      log.info?.("corrosion-followed", "changes come as they happen", {
        table: one.table.spec.name,
      });
      one.failures = 0;
    }
    this.#options.metrics.followed.set(this.#following.filter((each) => each.isLive).length);
  }

  get #isStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  async #pause(ms: number): Promise<void> {
    await wait(ms, undefined, { signal: this.#stopped.signal }).catch(ignoreAbort);
  }
}

/** The API answered, and not with rows. */
class Refusal extends Error {}

function lineOf(text: string): QueryLine {
  const parsed = parseJson(text);
  if (!parsed.ok) return { error: `a line that is no JSON: ${parsed.error}` };
  const line = parsed.value as Record<string, unknown>;
  for (const kind of ["row", "change"] as const) {
    const list = line[kind];
    if (!Array.isArray(list)) continue;
    const at = kind === "row" ? 1 : 2;
    const cells = (list[at] as readonly unknown[]).map((cell) => readSqlValue(cell) ?? null);
    return { [kind]: list.with(at, cells) } as unknown as QueryLine;
  }
  return line as unknown as QueryLine;
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error && error.name === "AbortError")) throw error;
}

const REASON_CHARACTERS_MAX = 300;
const WAIT_FIRST_MS = 100;
/** Arbitrary; an API that is back is found within half a minute. */
const WAIT_MAX_MS = 30_000;
const WRITE_PAUSE_MS = 1_000;
/** About a slice of the store worker. */
const BATCH_KEYS = 500;
