/**
 * The schema of a cluster is brought up to date replica by replica, in each of the three ways there
 * are, while every host writes all the time. The alter emits nothing, what came before a replica had
 * the new column is there when it has it, and all rows are equal in the end.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";

const OLD = "CREATE TABLE items (id TEXT NOT NULL PRIMARY KEY, v INTEGER NOT NULL DEFAULT 0);\n";
const NEW = `${OLD.replace("DEFAULT 0", "DEFAULT 0, note TEXT NOT NULL DEFAULT 'none'")}
CREATE TABLE extra (id TEXT NOT NULL PRIMARY KEY, v INTEGER);\n`;
/** Acknowledged writes of every host between two steps. */
const WRITES = 20;

let cluster: Cluster | undefined;
const writers: Writer[] = [];

afterAll(async () => {
  await Promise.all(writers.map((writer) => writer.pause()));
  await cluster?.close();
});

test("a cluster's schema is upgraded replica by replica under traffic", async () => {
  const config = { db: { schema_paths: ["./schema.sql"] } };
  const names = ["first", "second", "third"] as const;
  cluster = await Cluster.create(
    names.map((name) => ({
      name,
      kind: "worker",
      config,
      bootstrap: name === "first" ? [] : ["first"],
    })),
  );
  const [first, second, third] = [
    cluster.host("first"),
    cluster.host("second"),
    cluster.host("third"),
  ];
  for (const host of [first, second, third]) writeSchema(host, OLD);
  await cluster.start(...names);
  writers.push(...[first, second, third].map((host) => new Writer(host)));
  for (const writer of writers) writer.resume();
  await traffic();

  await upgrade(first, async () => {
    writeSchema(first, NEW);
    const reload = await runPatina(["-c", first.configFile, "reload"]);
    expect(reload.stderr).toContain("1 tables created, 1 columns added");
  });
  await traffic();
  for (const behind of [second, third]) {
    await until("something is kept aside", async () => (await keptAt(behind)) > 0);
  }

  await upgrade(second, async () => {
    writeSchema(second, NEW);
    const apply = ["schema", "apply", join(second.folder, "schema.sql")];
    const ending = await runPatina(["-c", second.configFile, ...apply]);
    expect(ending.stdout).toMatch(/changes emitted 0, 0 bytes per replica[^]*1 columns added/);
  });
  expect(await keptAt(second)).toBe(0);
  await traffic();

  await upgrade(third, async () => {
    third.signal("SIGTERM");
    expect((await third.ending()).code).toBe(EXIT.ok);
    writeSchema(third, NEW);
    third.start();
    await third.ready();
  });
  await traffic();

  await Promise.all(writers.map((writer) => writer.pause()));
  const written = writers.flatMap((writer) => writer.rows).toSorted(([a], [b]) => (a < b ? -1 : 1));
  expect(written.some(([, , note]) => note !== "none")).toBe(true);
  for (const host of [first, second, third]) {
    await until(`${host.options.name} has every row`, async () => {
      const rows = await rowsAt(host, "SELECT id, v, note FROM items ORDER BY id");
      return JSON.stringify(rows) === JSON.stringify(written);
    });
    expect(await rowsAt(host, "SELECT count(*) FROM extra")).not.toEqual([[0]]);
    expect(await rowsAt(host, EXTRA)).toEqual(await rowsAt(first, EXTRA));
    expect((await host.status()).needs).toBe(0);
    expect(await keptAt(host)).toBe(0);
  }
});

/** Upgrades one replica; its own writes stand still meanwhile, so that its head would tell a change. */
async function upgrade(host: TestHost, step: () => Promise<void>): Promise<void> {
  const writer = writers.find((one) => one.host === host)!;
  await writer.pause();
  const { actor, heads } = await host.status();
  await step();
  const after = await host.status();
  expect(after.actor).toBe(actor);
  expect(after.heads[actor]).toBe(heads[actor]);
  writer.isNew = true;
  writer.resume();
}

async function traffic(): Promise<void> {
  await Promise.all(writers.map((writer) => writer.acknowledged(WRITES)));
}

async function keptAt(host: TestHost): Promise<number> {
  const { stdout } = await runPatina(["-c", host.configFile, "status", "--json"]);
  return (JSON.parse(stdout) as { store: { kept: { changes: number } } }).store.kept.changes;
}

async function rowsAt(host: TestHost, sql: string): Promise<unknown[]> {
  const { text } = await host.api("POST", "/v1/queries", sql);
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.flatMap((line) => {
    const event = JSON.parse(line) as { row?: [number, unknown[]]; error?: string };
    if (event.error !== undefined) throw new Error(event.error);
    return event.row === undefined ? [] : [event.row[1]];
  });
}

function writeSchema(host: TestHost, text: string): void {
  writeFileSync(join(host.folder, "schema.sql"), text);
}

/** Writes rows of its host's own, one transaction after the other, and remembers the last of each. */
class Writer {
  readonly host: TestHost;
  /** Whether its host has the new schema. */
  isNew = false;
  #count = 0;
  #isRunning = false;
  #loop: Promise<void> = Promise.resolve();
  readonly #rows = new Map<string, readonly [string, number, string]>();
  readonly #watchers = new Set<() => void>();

  constructor(host: TestHost) {
    this.host = host;
  }

  get rows(): (readonly [string, number, string])[] {
    return [...this.#rows.values()];
  }

  resume(): void {
    this.#isRunning = true;
    this.#loop = this.#write();
  }

  async pause(): Promise<void> {
    this.#isRunning = false;
    await this.#loop;
  }

  /** Resolves when so many more writes were acknowledged. */
  async acknowledged(writes: number): Promise<void> {
    const goal = this.#count + writes;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = (): void => {
      if (this.#count >= goal) resolve();
    };
    this.#watchers.add(look);
    await Promise.race([promise, this.#loop]);
    this.#watchers.delete(look);
  }

  async #write(): Promise<void> {
    while (this.#isRunning) {
      const count = this.#count;
      const id = `${this.host.options.name} ${count % 40}`;
      const before = this.#rows.get(id)?.[2] ?? "none";
      const note = this.isNew ? `note ${count}` : before;
      const update = this.isNew ? ", note = excluded.note" : "";
      const [columns, values] = this.isNew
        ? ["id, v, note", `'${id}', ${count}, '${note}'`]
        : ["id, v", `'${id}', ${count}`];
      const upsert =
        `INSERT INTO items (${columns}) VALUES (${values})` +
        ` ON CONFLICT DO UPDATE SET v = excluded.v${update}`;
      const extra = `INSERT OR REPLACE INTO extra VALUES ('${id}', ${count})`;
      const statements = this.isNew ? [upsert, extra] : [upsert];
      const answer = await this.host.api("POST", "/v1/transactions", statements);
      if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text}`);
      this.#rows.set(id, [id, count, note]);
      this.#count += 1;
      for (const watcher of this.#watchers) watcher();
    }
  }
}

const EXTRA = "SELECT id, v FROM extra ORDER BY id";
