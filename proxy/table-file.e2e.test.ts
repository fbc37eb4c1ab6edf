/** The routing table's file: what is read is what was written, or nothing at all. */
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { RowChange, SqlValue } from "../replica/types.ts";
import { RoutingTable } from "../routing/routing-table.ts";
import { readTableFile, writeTableFile } from "./table-file.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-table-file-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const WATERMARK = { databaseId: "5d3c", dbVersion: 812 };
const SEEN = { build: "b1", shapes: { machines: { state: [1, 7, ["started"]] } } } as const;

test("a table made of its file routes as the one that was written", async () => {
  const table = filledTable(1500);
  const path = join(folder, "whole.table");
  const rows = await writeTableFile(path, {
    rows: table.rows(),
    watermark: WATERMARK,
    savedMs: 1_767_225_600_000,
    ...SEEN,
  });
  expect(rows).toBe(1 + 1 + 1500 * 3);
  const file = readTableFile(path);
  expect(file.ok && file.value).toMatchObject({
    watermark: WATERMARK,
    savedMs: 1_767_225_600_000,
  });
  expect(file.ok && file.value?.seen?.build).toBe(SEEN.build);
  expect(file.ok && file.value?.seen?.shapes.image()).toEqual(SEEN.shapes);
  const again = emptyTable();
  apply(again, file.ok ? (file.value?.rows ?? []) : []);
  expect(again.machineCount).toBe(1500);
  expect(again.explain("shop.test", 0)).toEqual(table.explain("shop.test", 0));
  expect(again.explain("shop.test", 0).excluded.length).toBe(150);
  expect([...again.rows()]).toEqual([...table.rows()]);
  expect(readdirSync(folder)).toEqual(["whole.table"]);
});

test("what changes while the file is written is right again after the changes since", async () => {
  const table = filledTable(2000);
  const path = join(folder, "changing.table");
  const changes: RowChange[] = [
    row("machines", ["m1"], null),
    row("machines", ["m1999"], { app_id: "shop", node_id: "w", region: "r", state: "stopped" }),
    ...machine("later"),
  ];
  const writing = writeTableFile(path, {
    rows: table.rows(),
    watermark: WATERMARK,
    savedMs: 1,
    ...SEEN,
  });
  apply(table, changes);
  await writing;
  const file = readTableFile(path);
  const again = emptyTable();
  apply(again, file.ok ? (file.value?.rows ?? []) : []);
  apply(again, changes);
  expect(again.explain("shop.test", 0)).toEqual(table.explain("shop.test", 0));
});

test("no file is no failure", () => {
  expect(readTableFile(join(folder, "none.table"))).toEqual({ ok: true, value: null });
});

test("a file that is cut short anywhere, or has one byte changed, is refused with a reason", async () => {
  const path = join(folder, "small.table");
  await writeTableFile(path, {
    rows: filledTable(3).rows(),
    watermark: WATERMARK,
    savedMs: 1,
    ...SEEN,
  });
  const whole = readFileSync(path);
  const damaged = join(folder, "damaged.table");
  const read = (bytes: Uint8Array): unknown => {
    writeFileSync(damaged, bytes);
    const file = readTableFile(damaged);
    return file.ok ? "accepted" : file.error;
  };
  expect(read(whole)).toBe("accepted");
  for (let length = 0; length < whole.length; length++) {
    expect(read(whole.subarray(0, length)), `cut at ${length}`).not.toBe("accepted");
  }
  for (let at = 0; at < whole.length; at++) {
    const changed = Buffer.from(whole);
    changed[at] = (changed[at] ?? 0) ^ 1;
    expect(read(changed), `byte ${at} changed`).not.toBe("accepted");
  }
});

test("a file of another version is refused by its number", () => {
  const path = join(folder, "later.table");
  writeFileSync(path, '{"format":"patina-table","version":3}\n{"rows":0}\n');
  expect(readTableFile(path)).toEqual({ ok: false, error: "it is of version 3" });
});

function emptyTable(): RoutingTable {
  return new RoutingTable({ standpoint: { region: "r" } });
}

function filledTable(machines: number): RoutingTable {
  const table = emptyTable();
  apply(table, [
    row("nodes", ["w"], { id: "w", actor_id: "", region: "r", latitude: 50.1, longitude: null }),
    row("hostnames", ["shop.test"], { hostname: "shop.test", app_id: "shop" }),
    ...Array.from({ length: machines }, (_, index) => machine(`m${index}`, index)).flat(),
  ]);
  return table;
}

function machine(id: string, index = 1): RowChange[] {
  const status = index % 10 === 0 ? "critical" : "passing";
  return [
    row("machines", [id], { id, app_id: "shop", node_id: "w", region: "r", state: "started" }),
    row("services", [id, "web"], {
      machine_id: id,
      name: "web",
      protocol: index % 2 === 0 ? "https" : "http",
      address: `10.0.${index >> 8}.${index & 255}:80`,
      soft_limit: index % 7,
      hard_limit: 9n,
    }),
    row("checks", [id, "web", "up"], { machine_id: id, service: "web", name: "up", status }),
  ];
}

function row(table: string, key: SqlValue[], value: RowChange["row"]): RowChange {
  return { table, key, row: value, actorId: "a", version: 1 };
}

function apply(table: RoutingTable, rows: readonly RowChange[]): void {
  table.apply({ kind: "rows", rows, watermark: WATERMARK });
}
