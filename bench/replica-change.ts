/**
 * How long one write takes to every one of 20 replicas, real processes on one machine: until its
 * row is readable in their SQLite files, then until they say its line on `/v1/updates`.
 *
 * The clock starts when the transaction leaves this process, so HTTP and commit are inside. Rows
 * are looked for about once a millisecond, which is the resolution (`RowWatch`). Writes come one by
 * one, each at another replica, after pauses of random length that keep them from falling in step
 * with any timer. The processes share the cores: with two, the work of 20 replicas for one change is
 * most of what the last one waits for.
 */
import Database from "better-sqlite3";
import { sleep, type Host } from "./local-cluster.ts";
import { percentile, type Bench, type BenchContext, type Sample } from "./measure.ts";
import { openStreams, startReplicas, writeRow } from "./replica-cluster.ts";

/** `last` = the slowest replica of a write; `each` = any other replica than the writer. */
export const bench: Bench = {
  about: "one write -> row in SQLite and line on /v1/updates of each of 20 replicas",
  figures: [
    { name: "row last p50", unit: "ms", target: { atMost: 12 }, corrosion: 17.2 },
    { name: "row last p99", unit: "ms", target: { atMost: 22 }, corrosion: 22.7 },
    { name: "row each p50", unit: "ms", corrosion: 11.9 },
    { name: "row each p99", unit: "ms", corrosion: 19.4 },
    { name: "line each p50", unit: "ms", target: { atMost: 8 }, corrosion: 17.9 },
    { name: "line each p99", unit: "ms", target: { atMost: 25 }, corrosion: 302 },
    { name: "line last p50", unit: "ms", corrosion: 25.5 },
    { name: "line last p99", unit: "ms", corrosion: 316 },
    { name: "answer p50", unit: "ms" },
    { name: "answer p99", unit: "ms" },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const count = Number(context.flags.get("replicas") ?? REPLICAS);
  const writes = Number(context.flags.get("writes") ?? WRITES);
  const hosts = await startReplicas(context, count);
  const rows = context.stack.use(new RowWatch(hosts));
  context.note(`${count} replicas, ${writes} writes each`);
  const ids = new Ids();
  await measureRows(hosts, { rows, ids, writes: WARM_UP });
  for (;;) {
    yield {
      ...(await measureRows(hosts, { rows, ids, writes })),
      ...(await measureLines(hosts, { ids, writes })),
    };
  }
}

async function measureRows(
  hosts: readonly Host[],
  parts: { readonly rows: RowWatch; readonly ids: Ids; readonly writes: number },
): Promise<Sample> {
  const times = new Times("row");
  const answersMs: number[] = [];
  for (let at = 0; at < parts.writes; at++) {
    await sleep(Math.random() * PAUSE_MAX_MS);
    const writer = at % hosts.length;
    const id = parts.ids.next();
    const startMs = performance.now();
    const written = writeRow(pick(hosts, writer), id).then(
      () => void answersMs.push(performance.now() - startMs),
    );
    const { lastMs, anyMs } = await parts.rows.seen(id, { writer, startMs });
    times.add([anyMs], lastMs);
    await written;
  }
  return {
    ...times.figures(),
    "answer p50": percentile(answersMs, 0.5),
    "answer p99": percentile(answersMs, 0.99),
  };
}

async function measureLines(
  hosts: readonly Host[],
  parts: { readonly ids: Ids; readonly writes: number },
): Promise<Sample> {
  const times = new Times("line");
  let note = (_at: number, _id: number, _nowMs: number): void => undefined;
  const streams = await openStreams(hosts, (at, id, nowMs) => note(at, id, nowMs));
  try {
    for (let at = -STREAM_WARM_UP; at < parts.writes; at++) {
      await sleep(Math.random() * PAUSE_MAX_MS);
      const writer = (at + STREAM_WARM_UP) % hosts.length;
      const id = parts.ids.next();
      const startMs = performance.now();
      const takenMs: number[] = [];
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      note = (seenAt, seenId, nowMs) => {
        if (seenId !== id || seenAt === writer) return;
        if (takenMs.push(nowMs - startMs) === hosts.length - 1) resolve();
      };
      const timer = setTimeout(
        () => reject(new Error(`${takenMs.length} lines after ${SEEN_LIMIT_MS} ms`)),
        SEEN_LIMIT_MS,
      );
      await Promise.all([writeRow(pick(hosts, writer), id), promise]);
      clearTimeout(timer);
      if (at >= 0) times.add(takenMs, Math.max(...takenMs));
    }
  } finally {
    streams.close();
  }
  return times.figures();
}

/**
 * Looks for rows in the replicas' files. A look costs some 20 microseconds of the cores that the
 * replicas need themselves, so each time it looks at two files only: at that of one replica chosen
 * by chance, and at the first of the rest that was not seen to have the row yet. The last one's time
 * is as exact as if it looked at all.
 */
class RowWatch implements Disposable {
  readonly #files: readonly { database: Database.Database; find: Database.Statement<[number]> }[];

  constructor(hosts: readonly Host[]) {
    this.#files = hosts.map(({ databasePath }) => {
      const database = new Database(databasePath, { readonly: true });
      return { database, find: database.prepare<[number]>("SELECT 1 FROM t WHERE id = ?").pluck() };
    });
  }

  /** When the last replica but the writer had it, and when one of them did, in ms since `startMs`. */
  async seen(id: number, from: { writer: number; startMs: number }): Promise<Seen> {
    const others = this.#files.filter((_, at) => at !== from.writer);
    const chosen = others[Math.floor(Math.random() * others.length)];
    let anyMs: number | null = null;
    let at = 0;
    for (;;) {
      await sleep(1);
      const nowMs = performance.now() - from.startMs;
      if (anyMs === null && chosen?.find.get(id) !== undefined) anyMs = nowMs;
      while (at < others.length && others[at]?.find.get(id) !== undefined) at++;
      if (at === others.length) return { lastMs: nowMs, anyMs: anyMs ?? nowMs };
      if (nowMs > SEEN_LIMIT_MS) {
        throw new Error(`replicas lack row ${id} after ${SEEN_LIMIT_MS} ms`);
      }
    }
  }

  [Symbol.dispose](): void {
    for (const { database } of this.#files) database.close();
  }
}

interface Seen {
  readonly lastMs: number;
  readonly anyMs: number;
}

/** Collects times of writes. */
class Times {
  readonly #name: string;
  readonly #each: number[] = [];
  readonly #last: number[] = [];

  constructor(name: string) {
    this.#name = name;
  }

  add(eachMs: readonly number[], lastMs: number): void {
    this.#each.push(...eachMs);
    this.#last.push(lastMs);
  }

  figures(): Sample {
    return {
      [`${this.#name} last p50`]: percentile(this.#last, 0.5),
      [`${this.#name} last p99`]: percentile(this.#last, 0.99),
      [`${this.#name} each p50`]: percentile(this.#each, 0.5),
      [`${this.#name} each p99`]: percentile(this.#each, 0.99),
    };
  }
}

/** Row ids, never the same again. */
class Ids {
  #last = 0;

  next(): number {
    return ++this.#last;
  }
}

function pick(hosts: readonly Host[], at: number): Host {
  const host = hosts[at];
  if (!host) throw new Error(`there is no replica ${at}`);
  return host;
}

const REPLICAS = 20;
const WRITES = 300;
/** Code is compiled by then, as it is in a replica that has run for some minutes. */
const WARM_UP = 300;
/** After streams were opened. */
const STREAM_WARM_UP = 40;
const PAUSE_MAX_MS = 50;
const SEEN_LIMIT_MS = 10_000;
