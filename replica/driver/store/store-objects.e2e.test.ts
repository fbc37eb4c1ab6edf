/** Whole objects: what a repeated, changed or foreign publish does. */
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { FullChangeset } from "../../types.ts";
import type { MachineDocument } from "./objects.ts";
import { readSchemaFolder } from "./schema-files.ts";
import type { Store } from "./store.ts";
import { StoreFolder, TS, copyAll } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("a machine is published with all its parts in one version and read back whole", () => {
  const store = open("w1");
  const commit = store.putObject("machines", MACHINE, TS);
  expect(commit?.version).toBe(1);
  expect(store.objects.get("machines", "m1")).toEqual({
    ...MACHINE,
    nodeId: "w1",
    updatedAtMs: expect.any(Number),
  });
  expect(store.objects.get("machines", "m2")).toBeNull();
});

test("publishing the same machine again uses no version, however late", () => {
  const store = open("w1");
  store.putObject("machines", MACHINE, TS);
  expect(store.putObject("machines", MACHINE, TS)).toBeNull();
  expect(store.ledger.books.head(store.actorId)).toBe(1);
});

test("only columns that differ are written, and the time of their row", () => {
  const store = open("w1");
  store.putObject("machines", MACHINE, TS);
  const [check] = MACHINE.checks;
  const changed = { ...MACHINE, checks: [{ ...check!, status: "critical" }] };
  const commit = store.putObject("machines", changed, TS);
  const changes = (commit?.changesets ?? []).flatMap(
    (changeset: FullChangeset) => changeset.changes,
  );
  expect(changes.map(({ table, cid }) => `${table}.${cid}`)).toEqual([
    "checks.status",
    "checks.updated_at",
  ]);
});

test("services and checks that are gone from the document are deleted", () => {
  const store = open("w1");
  store.putObject("machines", MACHINE, TS);
  store.putObject("machines", { ...MACHINE, services: [], checks: [] }, TS);
  expect(store.objects.get("machines", "m1")).toMatchObject({ services: [], checks: [] });
});

test("an object of another node is refused and left as it was, also for deletion", () => {
  const [owner, other] = [open("w1"), open("w2")];
  owner.putObject("machines", MACHINE, TS);
  owner.putObject("apps", { id: "a1", name: "shop" }, TS);
  copyAll(owner, other);
  const conflict = expect.objectContaining({ code: "STORE_OWNER" });
  expect(() => other.putObject("machines", { ...MACHINE, state: "stopped" }, TS)).toThrow(conflict);
  expect(() => other.deleteObject("machines", "m1", TS)).toThrow(conflict);
  expect(() => other.putObject("apps", { id: "a1", name: "mine" }, TS)).toThrow(conflict);
  expect(() => other.putObject("nodes", { ...NODE, id: "w1" }, TS)).toThrow(conflict);
  expect(other.objects.get("machines", "m1")).toMatchObject({ state: "started", nodeId: "w1" });
  expect(other.ledger.books.head(other.actorId)).toBe(0);
});

test("deleting a machine takes its services and checks along; deleting again is no version", () => {
  const store = open("w1");
  store.putObject("machines", MACHINE, TS);
  expect(store.deleteObject("machines", "m1", TS)).toMatchObject({
    existed: true,
    commit: { version: 2 },
  });
  expect(store.deleteObject("machines", "m1", TS)).toEqual({ existed: false, commit: null });
  for (const table of ["machines", "services", "checks"]) {
    expect(store.databaseForTests.prepare(`SELECT count(*) FROM ${table}`).pluck().get()).toBe(0n);
  }
});

test("two services of one name are refused and nothing is half-written", () => {
  const store = open("w1");
  const [service] = MACHINE.services;
  const twice = { ...MACHINE, services: [service!, service!] };
  expect(() => store.putObject("machines", twice, TS)).toThrow(
    expect.objectContaining({ code: "STORE_OBJECT" }),
  );
  expect(store.objects.get("machines", "m1")).toBeNull();
});

test("nodes, apps and host names are kept, and listed in pages by id", () => {
  const store = open("w1");
  store.putObject("nodes", NODE, TS);
  for (const id of ["c.example", "a.example", "b.example"]) {
    store.putObject("hostnames", { id, appId: "a1" }, TS);
  }
  expect(store.objects.get("nodes", "w1")).toMatchObject({ ...NODE, nodeId: "w1" });
  const first = store.objects.list("hostnames", { after: "", limit: 2 });
  expect(first.map(({ id }) => id)).toEqual(["a.example", "b.example"]);
  const rest = store.objects.list("hostnames", { after: "b.example", limit: 2 });
  expect(rest).toMatchObject([{ id: "c.example", appId: "a1", nodeId: "w1" }]);
});

const MACHINE: MachineDocument = {
  id: "m1",
  appId: "a1",
  region: "ams",
  state: "started",
  services: [
    { name: "http", address: "127.0.0.1:8001", protocol: "http", softLimit: 10, hardLimit: 20 },
  ],
  checks: [{ service: "http", name: "alive", status: "passing" }],
};
const NODE = {
  id: "w1",
  actorId: "00000001-0000-4000-8000-000000000000",
  region: "ams",
  kind: "worker",
  latitude: 52.3,
  longitude: null,
  address: "[::1]:8787",
};

let counter = 0;

function open(nodeId: string): Store {
  const schemaFolder = join(import.meta.dirname, "..", "..", "schema");
  const schemaFiles = readSchemaFolder(schemaFolder);
  counter += 1;
  return folder.open(`s${counter}`, { nodeId, schemaFiles });
}
