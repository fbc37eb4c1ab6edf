/**
 * One suite for both implementations of `ChangeStore`: the database and the model that simulations
 * stand on. What one answers to a history of changesets, the other must answer too.
 */
import { afterAll, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { ModelStore } from "../../sim/model-store.ts";
import { StreamPublisher, type StreamReader } from "../../core/change-stream/stream-publisher.ts";
import { packKey } from "../../core/wire/packed-key.ts";
import type {
  ActorId,
  ChangeStreamEvent,
  Changeset,
  ReadVersionsRequest,
  SqlValue,
} from "../../types.ts";
import type { Store } from "./store.ts";
import { StoreFolder, actor, apply, copyAll, rowsOf, serve, write } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("database and model give the same outcomes and serve the same versions, and their streams equal their tables", () => {
  for (let seed = 1; seed <= 15; seed += 1) checkSeed(seed);
});

function checkSeed(seed: number): void {
  const prng = createPrng(seed);
  const { writers, history } = writeHistory(seed);
  const database = folder.open(`r${seed}`, { actorId: actor(9) });
  const model = new ModelStore(actor(9), 8192);
  const { databaseId, rows } = model;
  const source = { databaseId, position: () => rows.position, retainedFrom: () => 0, rows };
  const modelStreams = new StreamPublisher(source);
  const publishers = [database.publisher.streams, modelStreams] as const;
  const prompt = publishers.map((publisher) => new Folder(publisher, Number.MAX_SAFE_INTEGER));
  const lagging = publishers.map((publisher) => new Folder(publisher, 1));
  const deliveries = prng.shuffle([...history, ...prng.sample(history, 10)]);
  for (const changeset of deliveries) {
    const [inDatabase] = apply(database, [changeset]);
    const [inModel] = model.apply([changeset]);
    modelStreams.committed();
    expect(inDatabase?.kind, `seed ${seed}`).toBe(inModel?.kind);
    checkAlike(prompt, database, model);
    if (prng.below(5) > 0) continue;
    for (const reader of lagging) reader.take(1);
    checkAlike(lagging, database, model);
    const fresh = publishers.map((publisher) => new Folder(publisher, Number.MAX_SAFE_INTEGER));
    checkAlike(fresh, database, model);
    for (const reader of fresh) reader.end();
  }
  for (const writer of writers) {
    const { actorId } = writer;
    for (let version = 1; version <= writer.ledger.books.head(actorId) + 1; version += 1) {
      const request = requestOf(actorId, version);
      const answers = [database.server.read(request), model.readVersions(request)].map(describe);
      expect(answers[0], `seed ${seed}, version ${version} of ${actorId}`).toEqual(answers[1]);
    }
  }
}

/**
 * Each stream adds up to its own tables, whole rows and no others. Batches are not compared with each
 * other: until all has arrived, the two differ in sentinels and in columns of a row's former life.
 */
function checkAlike([one, other]: readonly Folder[], database: Store, model: ModelStore): void {
  const rows = rowsOf(database, "SELECT id, a, b FROM t") as [string, SqlValue, SqlValue][];
  const stored = rows.map(([id, a, b]) => [hexOf([id]), contentOf({ a, b })]);
  expect(Object.fromEntries(one?.rows ?? [])).toEqual(Object.fromEntries(stored));
  const modelled = model.rows.live().map(({ pk, columns }) => {
    return [hexOf([pk]), contentOf(Object.fromEntries(columns))];
  });
  expect(Object.fromEntries(other?.rows ?? [])).toEqual(Object.fromEntries(modelled));
}

type Publisher = Pick<StreamPublisher<unknown>, "add" | "hasWork" | "step">;

/** A reader that folds what it is told. */
class Folder {
  readonly rows = new Map<string, unknown>();
  readonly #publisher: Publisher;
  readonly #reader: StreamReader;

  constructor(publisher: Publisher, credit: number) {
    this.#publisher = publisher;
    this.#reader = publisher.add({ from: null, tables: ["t"], credit }, (event) =>
      this.#onEvent(event),
    );
    this.take(0);
  }

  /** Took batches, and lets pages be read. */
  take(credit: number): void {
    this.#reader.grant(credit);
    while (this.#publisher.hasWork()) this.#publisher.step();
  }

  end(): void {
    this.#reader.end();
  }

  #onEvent(event: ChangeStreamEvent): void {
    if (event.kind !== "rows") return;
    for (const { key, row } of event.rows) {
      const id = hexOf(key);
      if (row === null) this.rows.delete(id);
      else this.rows.set(id, contentOf(row));
    }
  }
}

/** A key in the form of the model, which does not unpack it. */
function hexOf(key: readonly SqlValue[]): string {
  const [first] = key;
  const packed = first instanceof Uint8Array ? first : packKey(key);
  return Buffer.from(packed).toString("hex");
}

/** Columns that were written: the model knows no schema, so it has neither NULL nor defaults. */
function contentOf({ a = null, b = "" }: Readonly<Record<string, SqlValue>>): string {
  return `${String(a)} ${String(b)}`;
}

/** Three writers that see each other now and then; all they wrote, in pieces. */
function writeHistory(seed: number): { writers: Store[]; history: Changeset[] } {
  const prng = createPrng([seed, 1]);
  const names = [1, 2, 3];
  const writers = names.map((index) => folder.open(`w${seed}-${index}`, { actorId: actor(index) }));
  const history: Changeset[] = [];
  for (let step = 0; step < 25; step += 1) {
    const writer = prng.pick(writers);
    const other = prng.pick(writers);
    if (writer === undefined || other === undefined) continue;
    const id = `k${prng.below(2)}`;
    const text = `v${prng.below(2)}`;
    const kind = prng.below(4);
    let written: Changeset[];
    if (kind === 0) written = write(writer, "DELETE FROM t WHERE id = ?", id);
    else if (kind === 1) written = write(writer, "UPDATE t SET b = ? WHERE id = ?", text, id);
    else written = write(writer, "REPLACE INTO t VALUES (?, ?, ?)", id, text, text);
    const first = written[0];
    if (first?.kind === "full") {
      const versions = { start: first.version, end: first.version };
      history.push(...serve(writer, writer.actorId, versions, prng.below(2) === 0 ? 1 : 8192));
    }
    if (prng.below(3) === 0 && other !== writer) copyAll(writer, other);
  }
  return { writers, history };
}

function requestOf(actorId: ActorId, version: number): ReadVersionsRequest {
  const versions = { start: version, end: version };
  return { actorId, need: { kind: "full", versions }, chunkBytes: 8192 };
}

/**
 * What a peer would learn from an answer, chunk borders and stamps aside. Sentinels of rows that
 * live are left out: cr-sqlite credits them to whichever column it saw first, the model does not,
 * and every column carries the causal length anyway.
 */
function describe(answer: readonly Changeset[]): string[] {
  const changes = answer.flatMap((changeset) =>
    changeset.kind === "full" ? changeset.changes : [],
  );
  const told = changes.filter(({ cid, cl }) => cid !== "-1" || cl % 2 === 0);
  return told.map(({ cid, val, colVersion, cl, seq }) => {
    return `${seq} ${cid}=${String(val)} ${colVersion}/${cl}`;
  });
}
