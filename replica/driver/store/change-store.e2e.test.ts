/**
 * One suite for both implementations of `ChangeStore`: the database and the model that simulations
 * stand on. What one answers to a history of changesets, the other must answer too.
 */
import { afterAll, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { ModelStore } from "../../sim/model-store.ts";
import type { ActorId, Changeset, ReadVersionsRequest } from "../../types.ts";
import type { Store } from "./store.ts";
import { StoreFolder, actor, apply, copyAll, serve, write } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("database and model give the same outcomes and serve the same versions", () => {
  for (let seed = 1; seed <= 15; seed += 1) checkSeed(seed);
});

function checkSeed(seed: number): void {
  const prng = createPrng(seed);
  const { writers, history } = writeHistory(seed);
  const database = folder.open(`r${seed}`, { actorId: actor(9) });
  const model = new ModelStore(actor(9), 8192);
  const deliveries = prng.shuffle([...history, ...prng.sample(history, 10)]);
  for (const changeset of deliveries) {
    const [inDatabase] = apply(database, [changeset]);
    const [inModel] = model.apply([changeset]);
    expect(inDatabase?.kind, `seed ${seed}`).toBe(inModel?.kind);
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
