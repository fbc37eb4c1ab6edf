/**
 * A reader of one replica's change stream: folds what the production publisher sends it into a table
 * of its own, and says where that is not what a query gives.
 *
 * It lives on another machine: it keeps what it has over the replica's crashes and power losses,
 * goes away and comes back with its watermark, is put back to an older state of its own now and then, and
 * takes batches at a pace of its own. What it does depends on its own random numbers alone, so a
 * seed's run is the same with it and without.
 *
 * "Equals" is looked at whenever the stream says where it stands. A row can differ only if the store or
 * the fold has changed it since the last look, so these rows are compared and all are counted; after a
 * reset or a resume, all are compared.
 */
import { assert } from "#base/errors.ts";
import type { Prng } from "#base/prng.ts";
import {
  StreamPublisher,
  type StreamLimits,
  type StreamReader,
} from "../core/change-stream/stream-publisher.ts";
import type { ChangeStreamEvent, RowChange, SqlValue, Watermark } from "../types.ts";
import type { EventQueue } from "./event-queue.ts";
import { type ModelRow, rowKey } from "./model-rows.ts";
import type { ModelStore } from "./model-store.ts";

/** What a reader is made of. */
export interface SimReaderOptions {
  readonly queue: EventQueue;
  readonly prng: Prng;
  /** Says that a situation worth testing has been reached. */
  readonly mark: (mark: string) => void;
}

/** A row as the stream told it. */
type FoldedRow = Readonly<Record<string, SqlValue>>;

/** What a reader has. */
interface Fold {
  readonly rows: Map<string, FoldedRow>;
  /** Null = nothing that a stream could go on from. */
  readonly watermark: Watermark | null;
}

/** One reader of one replica, from the beginning of the world to its end. */
export class SimReader {
  readonly #options: SimReaderOptions;
  /** From a batch to the next credit. */
  readonly #takeMs: number;
  #fold: Fold = { rows: new Map(), watermark: null };
  /** An older state of the fold, to be put back to. */
  #saved: Fold = { rows: new Map(), watermark: null };
  #store: ModelStore | null = null;
  #publisher: StreamPublisher<number> | null = null;
  #stream: StreamReader | null = null;
  /** Connections so far: what was planned for an earlier one does not happen. */
  #connections = 0;
  #isCalm = false;
  #isDriven = false;
  /** Revision of the store's rows at the last look; 0 = compare all. */
  #seenRevision = 0;
  readonly #contradictions: string[] = [];

  constructor(options: SimReaderOptions) {
    this.#options = options;
    const { prng } = options;
    this.#takeMs = prng.next() * (prng.next() < 0.5 ? 5 : 1_500);
  }

  /** Where fold and query ever differed, in words. */
  get contradictions(): readonly string[] {
    return this.#contradictions;
  }

  /** Whether it is told of everything at once and has all rows there are. */
  get isAtEnd(): boolean {
    const { watermark } = this.#fold;
    return this.#stream !== null && watermark?.dbVersion === this.#store?.rows.position;
  }

  /** The replica started, with this on its disk. */
  storeStarted(store: ModelStore): void {
    const { rows, databaseId } = store;
    this.#store = store;
    const source = { databaseId, position: () => rows.position, retainedFrom: () => 0, rows };
    this.#publisher = new StreamPublisher(source, LIMITS);
    this.#connectLater(500);
  }

  /** The replica ended; what was on its way is lost or not. */
  storeEnded(): void {
    this.#disconnect();
    this.#store = null;
    this.#publisher = null;
  }

  /** The store committed something. */
  committed(): void {
    this.#publisher?.committed();
  }

  /** From here on it stays connected and takes everything at once. */
  calm(): void {
    this.#isCalm = true;
  }

  #connectLater(withinMs: number): void {
    const { queue, prng } = this.#options;
    const connection = this.#connections;
    queue.after(prng.next() * withinMs, () => {
      if (connection === this.#connections) this.#connect();
    });
  }

  #connect(): void {
    const publisher = this.#publisher;
    if (publisher === null) return;
    const { queue, prng, mark } = this.#options;
    this.#connections += 1;
    this.#seenRevision = 0;
    if (prng.next() < 0.3) {
      this.#fold = { rows: new Map(this.#saved.rows), watermark: this.#saved.watermark };
      mark("stream: went back");
    }
    const connection = this.#connections;
    const start = { from: this.#fold.watermark, tables: null, credit: CREDIT };
    this.#stream = publisher.add(start, (event) => {
      if (connection === this.#connections) this.#onEvent(event);
    });
    this.#drive();
    queue.after(prng.next() * STAY_MS, () => {
      if (connection !== this.#connections || this.#isCalm) return;
      this.#disconnect();
      this.#connectLater(AWAY_MS);
    });
  }

  #disconnect(): void {
    this.#connections += 1;
    this.#stream?.end();
    this.#stream = null;
  }

  #onEvent(event: ChangeStreamEvent): void {
    const { prng, mark } = this.#options;
    switch (event.kind) {
      case "reset":
        mark(`stream: ${event.reason}`);
        this.#fold = { rows: new Map(), watermark: null };
        this.#drive();
        return;
      case "rows":
        this.#take(event.rows);
        this.#grantLater();
        // Pages and what is replayed after them promise nothing.
        if (event.watermark.dbVersion === 0) return;
        if (this.#fold.watermark === null) return mark("stream: replayed");
        this.#look(event.watermark, event.rows);
        break;
      case "caughtUp":
        if (this.#fold.watermark !== null) mark("stream: resumed");
        this.#seenRevision = 0;
        this.#look(event.watermark, []);
        break;
    }
    if (prng.next() >= 0.1) return;
    this.#saved = { rows: new Map(this.#fold.rows), watermark: this.#fold.watermark };
  }

  #take(rows: readonly RowChange[]): void {
    for (const change of rows) {
      const id = idOf(change);
      if (change.row === null) this.#fold.rows.delete(id);
      else this.#fold.rows.set(id, change.row);
    }
  }

  /** The stream says that it stands at `watermark`: now the fold is what a query gives. */
  #look(watermark: Watermark, batch: readonly RowChange[]): void {
    const store = this.#store;
    assert(store !== null, "who sends has a store");
    const { rows, databaseId } = store;
    if (watermark.dbVersion !== rows.position || watermark.databaseId !== databaseId) {
      this.#contradictions.push(`told ${watermark.dbVersion} at ${rows.position}`);
    }
    const touched = rows.touchedAfter(this.#seenRevision);
    for (const row of touched) this.#compare(row);
    for (const change of batch) {
      const id = idOf(change);
      this.#compare(rows.row(id) ?? { id, columns: null });
    }
    if (this.#fold.rows.size !== rows.liveCount) {
      const counts = `${this.#fold.rows.size} rows of the stream, ${rows.liveCount} of the query`;
      this.#contradictions.push(`at ${watermark.dbVersion}: ${counts}`);
    }
    this.#seenRevision = rows.revision;
    this.#fold = { rows: this.#fold.rows, watermark };
  }

  #compare({ id, columns }: ModelRow): void {
    const folded = this.#fold.rows.get(id);
    if (isSame(folded, columns)) return;
    const told = folded === undefined ? "no row" : JSON.stringify(folded);
    const found = columns === null ? "no row" : [...columns].map(([cid, { val }]) => [cid, val]);
    this.#contradictions.push(
      `${id}: ${told} by the stream, ${JSON.stringify(found)} by the query`,
    );
  }

  #grantLater(): void {
    const { queue } = this.#options;
    const connection = this.#connections;
    queue.after(this.#isCalm ? 0 : this.#takeMs, () => {
      if (connection !== this.#connections) return;
      this.#stream?.grant(1);
      this.#drive();
    });
  }

  /** Has the publisher read pages, a piece at a time, while any reader waits for them. */
  #drive(): void {
    if (this.#isDriven) return;
    this.#isDriven = true;
    this.#options.queue.after(PAGE_MS, () => {
      this.#isDriven = false;
      const publisher = this.#publisher;
      if (publisher === null || !publisher.hasWork()) return;
      publisher.step();
      this.#drive();
    });
  }
}

function idOf({ table, key }: RowChange): string {
  const [pk] = key;
  assert(pk instanceof Uint8Array, "the model's keys are packed");
  return rowKey({ table, pk });
}

function isSame(folded: FoldedRow | undefined, columns: ModelRow["columns"]): boolean {
  if (folded === undefined || columns === null) return folded === undefined && columns === null;
  if (Object.keys(folded).length !== columns.size) return false;
  for (const [cid, { val }] of columns) if (folded[cid] !== val) return false;
  return true;
}

/** Small, so that a table of a few rows has pages, a tail to replay, and readers too far behind. */
const LIMITS: StreamLimits = { pageRows: 6, replayVersions: 3, backlogRowsMax: 12 };
/** As in production. */
const CREDIT = 4;
/** Greatest time of one connection, and from it to the next. */
const STAY_MS = 8_000;
const AWAY_MS = 4_000;
/** Between two pieces of work of the publisher. */
const PAGE_MS = 3;
