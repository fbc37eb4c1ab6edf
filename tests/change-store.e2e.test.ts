/** The database behind its worker and the simulator's model, held to one suite. */
import { afterAll } from "vitest";
import { packKey, unpackKey } from "../replica/core/wire/packed-key.ts";
import { StoreClient } from "../replica/driver/store/store-client.ts";
import { actor, StoreFolder, TS } from "../replica/driver/store/store-fixture.ts";
import { startStore, type StoreThread } from "../replica/driver/store/store-thread.ts";
import { ModelStore } from "../replica/sim/model-store.ts";
import type { ActorId, Statement } from "../replica/types.ts";
import {
  describeChangeStore,
  type RowWrite,
  type StoreSubject,
} from "./change-store-conformance.ts";

const folder = new StoreFolder();
const threads: StoreThread[] = [];
let databases = 0;

afterAll(async () => {
  for (const thread of threads) await thread.close();
  folder.remove();
});

describeChangeStore("cr-sqlite in the store worker", (number) => {
  databases += 1;
  return openDatabase(`d${databases}`, actorOf(number));
});

describeChangeStore("the model", async (number) =>
  createModelSubject(new ModelStore(actorOf(number), 8192)),
);

async function openDatabase(name: string, actorId: ActorId): Promise<StoreSubject> {
  const thread = await startStore(folder.options(name, { actorId }));
  threads.push(thread);
  const client = await StoreClient.connect(thread.connect());
  return {
    store: client,
    write: async (writes) => (await client.transact(writes.map(toStatement), TS)).commit,
    rows: async () => {
      const rows = new Map<string, string>();
      for await (const event of client.changes({ from: null })) {
        if (event.kind === "caughtUp") break;
        for (const { key, row } of event.kind === "rows" ? event.rows : []) {
          rows.set(String(key[0]), `${String(key[0])} ${String(row?.["a"])} ${String(row?.["b"])}`);
        }
      }
      return [...rows.values()].toSorted();
    },
    reopen: async () => {
      client.close();
      await thread.close();
      return openDatabase(name, actorId);
    },
  };
}

function toStatement({ id, columns }: RowWrite): Statement {
  if (columns === null) return { sql: "DELETE FROM t WHERE id = ?", params: [id] };
  const names = Object.keys(columns);
  return {
    sql: `INSERT INTO t (id, ${names.join(", ")}) VALUES (?, ${names.map(() => "?").join(", ")})
      ON CONFLICT DO UPDATE SET ${names.map((name) => `${name} = excluded.${name}`).join(", ")}`,
    params: [id, ...Object.values(columns)],
  };
}

function createModelSubject(model: ModelStore): StoreSubject {
  return {
    store: {
      actorId: model.actorId,
      books: model.loadBooks(),
      apply: async (changesets) => model.apply(changesets),
      readVersions: async (request) => model.readVersions(request),
    },
    write: async (writes) =>
      model.transact(
        writes.map(({ id, columns }) => ({ table: "t", pk: packKey([id]), columns })),
        TS,
      ),
    rows: async () =>
      model.rows
        .live()
        .map(({ pk, columns }) => {
          const key = unpackKey(pk);
          const id = key.ok ? String(key.value[0]) : "?";
          return `${id} ${String(columns.get("a"))} ${String(columns.get("b"))}`;
        })
        .toSorted(),
    // Nothing is kept in memory that is not on its disk.
    reopen: async () => createModelSubject(model),
  };
}

function actorOf(number: number): ActorId {
  return number < 10
    ? actor(number)
    : `${String(number).padStart(8, "0")}-0000-4000-8000-000000000000`;
}
