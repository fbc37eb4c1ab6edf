/**
 * Follows the local Consul agent: each round asks for its services and checks and writes what differs
 * in one transaction.
 *
 * A round that does not get both answers whole writes nothing, and the next ones wait longer and longer:
 * an agent that is away must not become a storm of changes. Whenever it is not certain what the tables
 * hold (at the start, after a write that failed, and from time to time) they are read first.
 */
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import {
  CONSUL_TABLES,
  planTable,
  type ConsulRow,
  type ConsulStatement,
  type ConsulTable,
  type SeenRow,
} from "./consul-rows.ts";

/** What a sync works with. */
export interface ConsulSyncOptions {
  readonly node: string;
  /** The rows of one kind, from the agent; rejects when there is no whole answer. */
  readonly ask: (table: ConsulTable) => Promise<readonly SeenRow[]>;
  readonly replica: {
    /** This node's rows. Rejects when the table is not as it must be. */
    rows(table: ConsulTable): Promise<{ rows: readonly ConsulRow[]; hasSource: boolean }>;
    /** All or nothing. */
    write(statements: readonly ConsulStatement[]): Promise<void>;
  };
  readonly log: Logger;
  readonly pullMs: number;
  /** Wall-clock milliseconds. */
  readonly nowMs: () => number;
  /** From 0 to 1; for the jitter of pauses. */
  readonly random: () => number;
}

interface Known {
  readonly rowById: ReadonlyMap<string, ConsulRow>;
  readonly hasSource: boolean;
}

/** One per process. */
export class ConsulSync {
  readonly #options: ConsulSyncOptions;
  /** By table; null = to be read. */
  #known: ReadonlyMap<ConsulTable, Known> | null = null;
  #failures = 0;
  #nextFullMs = 0;

  constructor(options: ConsulSyncOptions) {
    this.#options = options;
  }

  /** One round; how long to wait for the next one, in ms. Never rejects. */
  async round(): Promise<number> {
    const { log, pullMs, random } = this.#options;
    try {
      const { upserted, deleted } = await this.#sync();
      if (this.#failures > 0) log.info?.("consul-back", "rounds go on", { failed: this.#failures });
      if (upserted + deleted > 0) log.info?.("consul-written", "", { upserted, deleted });
      this.#failures = 0;
      return pullMs;
    } catch (error) {
      this.#failures += 1;
      // Once, then at powers of ten.
      if (/^10*$/.test(String(this.#failures))) {
        const text = `nothing is written: ${errorText(error)}`;
        log.warn?.("consul-round-failed", text, { failures: this.#failures });
      }
      const waitMs = Math.min(WAIT_MAX_MS, pullMs * 2 ** Math.min(this.#failures, DOUBLINGS_MAX));
      return waitMs * (0.5 + random() / 2);
    }
  }

  async #sync(): Promise<{ upserted: number; deleted: number }> {
    const { ask, replica, node, nowMs } = this.#options;
    const answers = await Promise.all(CONSUL_TABLES.map(ask));
    const isFull = this.#known === null || nowMs() >= this.#nextFullMs;
    const known = isFull ? await this.#read() : (this.#known ?? new Map());
    const statements: ConsulStatement[] = [];
    const next = new Map<ConsulTable, Known>();
    let [upserted, deleted] = [0, 0];
    for (const [at, table] of CONSUL_TABLES.entries()) {
      const { rowById, hasSource } = known.get(table) ?? NOTHING;
      const plan = planTable(table, {
        node,
        known: rowById,
        seen: answers[at] ?? [],
        isFull,
        hasSource,
        nowMs: nowMs(),
      });
      statements.push(...plan.statements);
      next.set(table, { rowById: plan.rowById, hasSource });
      upserted += plan.upserted;
      deleted += plan.deleted;
    }
    if (statements.length > 0) {
      // Whether a write that fails was carried out is not known.
      this.#known = null;
      await replica.write(statements);
    }
    this.#known = next;
    if (isFull) this.#nextFullMs = nowMs() + FULL_PERIOD_MS;
    return { upserted, deleted };
  }

  async #read(): Promise<ReadonlyMap<ConsulTable, Known>> {
    const known = new Map<ConsulTable, Known>();
    for (const table of CONSUL_TABLES) {
      const { rows, hasSource } = await this.#options.replica.rows(table);
      known.set(table, { rowById: new Map(rows.map((row) => [row.id, row])), hasSource });
    }
    return known;
  }
}

const NOTHING: Known = { rowById: new Map(), hasSource: false };
/** Arbitrary; an agent that is back is noticed within half a minute, and by 32 rounds. */
const WAIT_MAX_MS = 30_000;
const DOUBLINGS_MAX = 5;
/** Corrosion's: the tables are compared whole every 15 minutes. */
const FULL_PERIOD_MS = 900_000;
