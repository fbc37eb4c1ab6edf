/** A table behind its gate: what requests see while changes and origins are held. */
import { expect, test } from "vitest";
import { RoutingTable } from "../routing-table.ts";
import type { RowChange } from "../types.ts";
import { NO_QUARANTINE, type Hold, type QuarantineState } from "./quarantine.ts";
import { QuarantineGate } from "./quarantine-gate.ts";

const OLD = { id: "m1", app_id: "shop", node_id: "n", region: "old", state: "started" };

test("the version before stays in force, a newer one is taken and ends the hold", () => {
  const world = new World(held(machine("m1", 5, "poison"), { previous: OLD }));
  world.take(machine("m1", 5, "poison"));
  expect(world.regions()).toEqual(["old"]);
  expect(world.gate.drainSuperseded()).toEqual([]);
  world.take(machine("m1", 6, "mended"));
  expect(world.regions()).toEqual(["mended"]);
  expect(world.gate.drainSuperseded()).toEqual(["c1"]);
});

test("without a version before the machine is absent; with one in use that is kept", () => {
  const absent = new World(held(machine("m1", 5, "poison"), { previous: null }));
  absent.take(machine("m1", 5, "poison"));
  expect(absent.regions()).toEqual([]);
  const unknown = new World(held(machine("m1", 5, "poison")));
  unknown.table.apply(rows([machine("m1", 4, "in use")]));
  unknown.take(machine("m1", 5, "poison"));
  expect(unknown.regions()).toEqual(["in use"]);
});

test("the rest of the same version is taken", () => {
  const world = new World(held(machine("m1", 5, "poison"), { previous: OLD }));
  world.take(machine("m1", 5, "poison"), machine("m2", 5, "other"));
  expect(world.regions()).toEqual(["old", "other"]);
});

test.each([
  ["a machine deleted", { ...machine("m1", 5, ""), row: null }],
  ["a machine that stops", machine("m1", 5, "here", "stopped")],
  ["a service deleted", { ...service("m1", 5), row: null }],
  ["a check that fails", check("m1", 5, "critical")],
] as const)("%s takes effect without the table's code, held or of a held origin", (_, change) => {
  for (const state of [held(change, { isDown: true }), heldOrigin()]) {
    const world = new World(NO_QUARANTINE);
    world.take(machine("m1", 4, "here"));
    expect(world.pick()).toBe("m1");
    world.gate.set(state);
    const applied = world.table.stats.rowsApplied;
    expect(world.gate.admit(change)).toBe(null);
    expect(world.table.stats.rowsApplied).toBe(applied);
    expect(world.pick()).toBe(null);
    expect(world.table.explain("shop.test", 0).candidates).toMatchObject([
      { avoidedFor: "denied" },
    ]);
  }
});

test("a hostname deleted by a held origin leads nowhere", () => {
  const world = new World(heldOrigin());
  const name = { ...hostname(5), row: null };
  world.table.apply(rows([machine("m1", 4, "here")]));
  expect(world.table.appOf("SHOP.test:80")).toBe("shop");
  expect(world.gate.admit(name)).toBe(null);
  expect(world.table.appOf("SHOP.test:80")).toBe(null);
});

test("a held origin's check that passes again ends what its failure denied", () => {
  const world = new World(heldOrigin());
  world.table.apply(rows([machine("m1", 4, "here")]));
  world.take(check("m1", 5, "critical"));
  expect(world.pick()).toBe(null);
  world.take(check("m1", 6, "passing"));
  expect(world.pick()).toBe("m1");
});

test("of a held origin rows in use stay, new ones are absent; other origins go on", () => {
  const world = new World(heldOrigin());
  world.table.apply(rows([machine("m1", 4, "before")]));
  world.take(machine("m1", 5, "after"), machine("m2", 5, "new"));
  world.take({ ...machine("m3", 1, "foreign"), actorId: "actor-2" });
  expect(world.regions()).toEqual(["before", "foreign"]);
});

test("a stream that starts over keeps what is held, and forgets denials of what is gone", () => {
  const world = new World(heldOrigin());
  world.table.apply(rows([machine("m1", 4, "before"), machine("m2", 4, "before")]));
  world.take({ ...machine("m2", 5, ""), row: null });
  expect(world.table.denied.size).toBe(1);
  world.gate.began();
  world.table.apply({ kind: "reset", reason: "refeed" });
  world.take(machine("m1", 5, "after"));
  world.table.apply({ kind: "caughtUp", watermark: WATERMARK });
  world.gate.caughtUp();
  expect(world.regions()).toEqual(["before"]);
  expect(world.table.denied.size).toBe(0);
});

test("the first table takes the row before of a held one, and all of its own file", () => {
  const first = { ...machine("m1", 0, "of the database"), actorId: "" };
  const state = held(machine("m1", 5, "poison"), { previous: OLD });
  const { gate } = new World(state);
  expect(gate.admitFirst(first, false)?.row).toEqual(OLD);
  expect(gate.admitFirst(first, true)).toBe(first);
  // A row of the file itself stalled the last start.
  const own = new World(held(first)).gate;
  expect(own.admitFirst(first, true)).toBe(null);
});

test("a frozen table gets nothing; what goes down counts until its row says otherwise", () => {
  const world = new World(FROZEN);
  world.table.apply(rows([machine("m1", 1, "old")]));
  expect(world.pick()).toBe("m1");
  const down = [
    machine("m1", 5, "here", "stopped"),
    check("m1", 5, "critical"),
    { ...hostname(5), row: null },
    { ...service("m1", 5), row: null },
  ];
  const up = [machine("m1", 6, "moved"), check("m1", 6, "passing"), hostname(6), service("m1", 6)];
  for (const [at, change] of down.entries()) {
    expect(world.gate.countDown(change)).toBe(true);
    expect(world.pick()).toBe(null);
    expect(up[at] && world.gate.countDown(up[at])).toBe(false);
    expect(world.pick()).toBe("m1");
  }
  expect(world.regions()).toEqual(["old"]);
});

test("what a stream of all rows does not have any more takes no traffic from a frozen table", () => {
  const world = new World(FROZEN);
  world.table.apply(rows([machine("m1", 1, "old"), machine("m2", 1, "old"), service("m2", 1)]));
  expect(world.pick()).not.toBe(null);
  world.gate.began();
  // `m1` and the hostname are no more; the check of `m2` never was.
  for (const change of [machine("m2", 2, "new"), service("m2", 2)]) world.gate.countDown(change);
  expect(world.pick()).not.toBe(null);
  world.gate.caughtUp();
  expect(world.pick()).toBe(null);
  world.gate.countDown(hostname(3));
  expect(world.pick()).toBe("m2");
});

test("a table that is frozen no more takes everything, and nothing stays denied", () => {
  const world = new World(FROZEN);
  world.table.apply(rows([machine("m1", 1, "old")]));
  world.gate.countDown(machine("m1", 5, "here", "stopped"));
  world.gate.set(NO_QUARANTINE);
  world.gate.began();
  world.take(machine("m1", 6, "new"));
  world.gate.caughtUp();
  expect(world.regions()).toEqual(["new"]);
  expect(world.pick()).toBe("m1");
  expect(world.table.denied.size).toBe(0);
});

const FROZEN: QuarantineState = {
  ...NO_QUARANTINE,
  frozen: { stallId: "s", sinceMs: 0, peers: 6 },
};
const WATERMARK = { databaseId: "d", dbVersion: 1 };

class World {
  readonly table = new RoutingTable({ standpoint: { region: "here" } });
  readonly gate: QuarantineGate;

  constructor(state: QuarantineState) {
    const rowInUse = (change: RowChange): RowChange["row"] => this.table.row(change);
    this.gate = new QuarantineGate({
      denied: this.table.denied,
      rowInUse,
      rowsInUse: () => this.table.rows(),
    });
    this.gate.set(state);
    this.table.apply(rows([hostname(1), service("m1", 1), check("m1", 1, "passing")]));
  }

  take(...changes: readonly RowChange[]): void {
    this.table.apply(rows(changes.flatMap((change) => this.gate.admit(change) ?? [])));
  }

  pick(): string | null {
    return this.table.pick("shop.test", [], 0).candidate?.machineId ?? null;
  }

  regions(): unknown[] {
    const machines = [...this.table.rows()].filter(({ table }) => table === "machines");
    return machines.map(({ row }) => row["region"]);
  }
}

function rows(changes: readonly RowChange[]) {
  return { kind: "rows", rows: changes, watermark: WATERMARK } as const;
}

function machine(id: string, version: number, region: string, state = "started"): RowChange {
  const row = { id, app_id: "shop", node_id: "n", region, state };
  return { table: "machines", key: [id], row, actorId: "actor-1", version };
}

function service(id: string, version: number): RowChange {
  const row = { machine_id: id, name: "web", protocol: "http", address: "10.0.0.1:80" };
  return { table: "services", key: [id, "web"], row, actorId: "actor-1", version };
}

function check(id: string, version: number, status: string): RowChange {
  const row = { machine_id: id, service: "web", name: "up", status };
  return { table: "checks", key: [id, "web", "up"], row, actorId: "actor-1", version };
}

function hostname(version: number): RowChange {
  const row = { hostname: "shop.test", app_id: "shop" };
  return { table: "hostnames", key: ["shop.test"], row, actorId: "actor-1", version };
}

function held(change: RowChange, options: Partial<Hold> = {}): QuarantineState {
  const { actorId, version, table, key } = change;
  const hold: Hold = {
    id: "c1",
    change: { actorId, version, table, key: key.map(String).join(","), app: "shop" },
    isDown: false,
    stallId: "s",
    heldMs: 0,
    expiresMs: null,
    stalls: 1,
    ...options,
  };
  return { ...NO_QUARANTINE, holds: [hold] };
}

function heldOrigin(): QuarantineState {
  const origin = { id: "o1", actorId: "actor-1", heldMs: 0, expiresMs: null };
  return { ...NO_QUARANTINE, origins: [origin] };
}
