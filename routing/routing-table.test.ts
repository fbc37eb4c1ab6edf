import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ChangeStreamEvent } from "../replica/types.ts";
import { LoadSlots } from "./core/load-slots.ts";
import { RoutingTable, type RoutingTableOptions } from "./routing-table.ts";
import type { Candidate, RowChange } from "./types.ts";

describe("picking", () => {
  test("the machine on the host with the least measured round trip is picked", () => {
    const table = tableWith([...app("a"), ...machine("m1", "n1"), ...machine("m2", "n2")]);
    table.sampleRtt({ nodeId: "n1" }, 80);
    table.sampleRtt({ nodeId: "n2" }, 12);
    expect(pick(table)).toEqual(["m2", "nearest"]);
  });

  test("a measured host beats one whose distance is only guessed to be far", () => {
    const table = tableWith([...app("a"), ...machine("m1", "n1"), ...machine("m2", "n2")]);
    table.sampleRtt({ nodeId: "n2" }, 150);
    expect(pick(table)).toEqual(["m2", "nearest"]);
  });

  test("without any measurement the edge's own region comes first", () => {
    const table = tableWith([
      ...app("a"),
      ...machine("m1", "n1", { region: "gru" }),
      ...machine("m2", "n2", { region: "ams" }),
    ]);
    expect(pick(table)).toEqual(["m2", "nearest"]);
  });

  test("coordinates order hosts that were never measured", () => {
    const table = new RoutingTable({
      standpoint: { region: "ams", coordinates: { latitude: 52.3, longitude: 4.8 } },
    });
    feed(table, [
      ...app("a"),
      node("n1", { latitude: 35.5, longitude: 139.8 }),
      node("n2", { latitude: 50.0, longitude: 8.6 }),
      ...machine("m1", "n1"),
      ...machine("m2", "n2"),
    ]);
    expect(pick(table)).toEqual(["m2", "nearest"]);
  });

  test("a nearer machine at its soft limit spills to the next", () => {
    const table = near2();
    fill(table, "m1", 2);
    expect(pick(table)).toEqual(["m2", "spill"]);
  });

  test("when all are at the soft limit, the nearest below its hard limit takes more", () => {
    const table = near2();
    fill(table, "m1", 2);
    fill(table, "m2", 2);
    expect(pick(table)).toEqual(["m1", "overSoft"]);
  });

  test("a machine at its hard limit takes nothing, and all full is said", () => {
    const table = near2();
    fill(table, "m1", 4);
    fill(table, "m2", 2);
    expect(pick(table)).toEqual(["m2", "overSoft"]);
    fill(table, "m2", 2);
    expect(pick(table)).toEqual([null, "allFull"]);
  });

  test("a hard limit of 0 never fills", () => {
    const table = tableWith([...app("a"), ...machine("m1", "n1", { soft: 1n, hard: 0n })]);
    fill(table, "m1", 50);
    expect(pick(table)).toEqual(["m1", "overSoft"]);
  });

  test("of equally near machines the one with fewest requests in flight is picked", () => {
    const table = tableWith([...app("a"), ...machine("m1", "n1"), ...machine("m2", "n1")]);
    fill(table, "m1", 1);
    expect(pick(table)).toEqual(["m2", "nearest"]);
    fill(table, "m2", 2);
    expect(pick(table)).toEqual(["m1", "nearest"]);
  });

  test("equals share evenly when nothing is in flight", () => {
    const table = tableWith(
      [...app("a")].concat(...["m1", "m2", "m3"].map((id) => machine(id, "n1"))),
    );
    const counts = new Map<string | null, number>();
    for (let turn = 0; turn < 300; turn++) {
      const [id] = pick(table);
      counts.set(id, (counts.get(id) ?? 0) + 1);
    }
    expect([...counts.values()]).toEqual([100, 100, 100]);
  });

  test("an excluded machine is not picked again, and none left is said", () => {
    const table = near2();
    const first = candidate(table, "m1");
    const second = candidate(table, "m2");
    expect(pick(table, [first.key])).toEqual(["m2", "nearest"]);
    expect(pick(table, [first.key, second.key])).toEqual([null, "noMachine"]);
  });

  test("property: a pick is never excluded, full, or farther than a free one out of a tie", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            rtt: fc.integer({ min: 0, max: 300 }),
            load: fc.integer({ min: 0, max: 6 }),
            isExcluded: fc.boolean(),
          }),
          { minLength: 1, maxLength: 8 },
        ),
        (hosts) => {
          const table = tableWith(
            hosts
              .flatMap((_, index) => machine(`m${index}`, `n${index}`, { soft: 3n, hard: 5n }))
              .concat(app("a")),
          );
          const excluded: string[] = [];
          hosts.forEach((host, index) => {
            table.sampleRtt({ nodeId: `n${index}` }, host.rtt);
            fill(table, `m${index}`, host.load);
            if (host.isExcluded) excluded.push(candidate(table, `m${index}`).key);
          });
          const open = hosts.filter((host) => !host.isExcluded && host.load < 5);
          const below = open.filter((host) => host.load < 3);
          const { candidate: picked } = table.pick("a.test", excluded, 0);
          if (picked === null) return open.length === 0;
          const host = hosts[Number(picked.machineId.slice(1))]!;
          const pool = below.length > 0 ? below : open;
          const nearest = Math.min(...pool.map((one) => one.rtt));
          return pool.includes(host) && host.rtt - nearest <= Math.max(1, nearest / 10);
        },
      ),
    );
  });
});

describe("what takes traffic", () => {
  test.each([
    ["a machine that is not started", { state: "stopped" }],
    ["a service that is not HTTP", { protocol: "tcp" }],
    ["an address that cannot be dialled", { address: "example.test:80" }],
    ["a port out of range", { address: "127.0.0.1:70000" }],
  ])("%s does not", (_claim, options) => {
    const table = tableWith([...app("a"), ...machine("m1", "n1", options)]);
    expect(pick(table)).toEqual([null, "noMachine"]);
    expect(table.explain("a.test", 0).excluded).toHaveLength(1);
  });

  test("a check that fails takes its service out, and passing brings it back", () => {
    const table = near2();
    feed(table, [check("m1", "web", "critical")]);
    expect(pick(table)).toEqual(["m2", "nearest"]);
    feed(table, [check("m1", "web", "passing")]);
    expect(pick(table)).toEqual(["m1", "nearest"]);
  });

  test("a check of another service does not matter, one of the whole machine does", () => {
    const table = near2();
    feed(table, [check("m1", "admin", "critical")]);
    expect(pick(table)).toEqual(["m1", "nearest"]);
    feed(table, [check("m1", "", "critical")]);
    expect(pick(table)).toEqual(["m2", "nearest"]);
  });

  test("a service that turns to HTTPS is another candidate: pooled connections are none of its", () => {
    const gone: string[] = [];
    const table = new RoutingTable({
      standpoint: { region: "ams" },
      onGone: (candidate) => gone.push(candidate.key),
    });
    feed(table, [...app("a"), ...machine("m1", "n1", {})]);
    const before = candidate(table, "m1");
    feed(table, machine("m1", "n1", { protocol: "https" }));
    const after = candidate(table, "m1");
    expect([before.isTls, after.isTls]).toEqual([false, true]);
    expect(after.key).not.toBe(before.key);
    expect(gone).toEqual([before.key]);
  });

  test("IPv6 addresses are dialled without brackets", () => {
    const table = tableWith([...app("a"), ...machine("m1", "n1", { address: "[2001:db8::1]:81" })]);
    expect(candidate(table, "m1")).toMatchObject({ host: "2001:db8::1", port: 81 });
  });

  test("rows with values of any type never throw", () => {
    const value = fc.oneof(
      fc.constant(null),
      fc.bigInt(),
      fc.double(),
      fc.string(),
      fc.uint8Array(),
    );
    const columns = ["id", "app_id", "node_id", "state", "address", "soft_limit", "status"];
    const rowChange = fc.record({
      table: fc.constantFrom("nodes", "hostnames", "machines", "services", "checks", "other"),
      key: fc.array(value, { maxLength: 3 }),
      row: fc.option(fc.dictionary(fc.constantFrom(...columns), value)),
      actorId: fc.constant(ACTOR),
      version: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(rowChange, { maxLength: 20 }), (rows) => {
        const table = tableWith(app("a"));
        feed(table, rows);
        table.pick("a.test", [], 0);
        table.explain("a.test", 0);
      }),
    );
  });
});

describe("learning", () => {
  test("a deleted machine is out with the batch that says so", () => {
    const gone: string[] = [];
    const table = near2({ onGone: (one) => gone.push(one.machineId) });
    feed(table, [deleted("machines", "m1")]);
    expect(pick(table)).toEqual(["m2", "nearest"]);
    expect(gone).toEqual(["m1"]);
  });

  test("a request keeps the candidate it was given when its machine moves", () => {
    const table = near2();
    const held = candidate(table, "m1");
    table.started(held);
    feed(table, machine("m1", "n1", { address: "127.0.0.1:9999" }));
    expect(held.port).toBe(8001);
    expect(candidate(table, "m1").port).toBe(9999);
    table.finished(held);
    expect(table.load.inFlight(held.slot)).toBe(0);
  });

  test("a failed connect takes a machine out at once, longer each time, until it answers", () => {
    const table = near2();
    const first = candidate(table, "m1");
    table.connectFailed(first, 0);
    expect(pick(table, [], 999)).toEqual(["m2", "nearest"]);
    expect(pick(table, [], 1_000)).toEqual(["m1", "nearest"]);
    table.connectFailed(first, 1_000);
    expect(pick(table, [], 2_999)).toEqual(["m2", "nearest"]);
    table.connected(first, 1);
    expect(pick(table, [], 2_999)).toEqual(["m1", "nearest"]);
  });

  test("news of a machine ends its avoidance", () => {
    const table = near2();
    table.connectFailed(candidate(table, "m1"), 0);
    feed(table, machine("m1", "n1"));
    expect(pick(table, [], 1)).toEqual(["m1", "nearest"]);
  });

  test("a machine that failed is still the last resort", () => {
    const table = tableWith([...app("a"), ...machine("m1", "n1")]);
    table.connectFailed(candidate(table, "m1"), 0);
    expect(pick(table, [], 1)).toEqual(["m1", "lastResort"]);
  });

  test("machines of a host that SWIM calls down are the last resort until it is back", () => {
    const table = near2();
    table.setHostDown(actorOf("n1"), true);
    expect(pick(table)).toEqual(["m2", "nearest"]);
    table.setHostDown(actorOf("n1"), false);
    expect(pick(table)).toEqual(["m1", "nearest"]);
  });

  test("a sample by actor id reaches the host that the actor runs on", () => {
    const table = near2();
    table.sampleRtt({ actorId: actorOf("n2") }, 0.2);
    expect(pick(table)).toEqual(["m2", "nearest"]);
  });

  test("a sample that comes before its host's row counts once the row is there", () => {
    const table = tableWith([...app("a"), ...machine("m1", "n1"), ...machine("m2", "n2")]);
    table.sampleRtt({ actorId: actorOf("n1") }, 80);
    table.sampleRtt({ actorId: actorOf("n2") }, 12);
    feed(table, [node("n1"), node("n2")]);
    expect(pick(table)).toEqual(["m2", "nearest"]);
    expect(candidate(table, "m1").rttMs).toBe(80);
  });

  test("a sample that comes while all rows are sent anew counts once they are in use", () => {
    const table = new RoutingTable({ standpoint: { region: "ams" } });
    table.apply({ kind: "reset", reason: "far behind" });
    feed(table, [
      ...app("a"),
      node("n1"),
      node("n2"),
      ...machine("m1", "n1"),
      ...machine("m2", "n2"),
    ]);
    table.sampleRtt({ actorId: actorOf("n2") }, 8);
    table.apply({ kind: "caughtUp", watermark: { databaseId: "d", dbVersion: ++dbVersion } });
    expect(pick(table)).toEqual(["m2", "nearest"]);
    expect(table.explain("a.test", 0).candidates[0]?.candidate.isMeasured).toBe(true);
  });

  test("a host that is gone is measured afresh when it comes back", () => {
    const table = tableWith([...app("a"), node("n1"), ...machine("m1", "n1")]);
    table.sampleRtt({ nodeId: "n1" }, 8);
    feed(table, [
      deleted("services", "m1", "web"),
      deleted("machines", "m1"),
      deleted("nodes", "n1"),
    ]);
    feed(table, [node("n1"), ...machine("m1", "n1")]);
    expect(table.explain("a.test", 0).candidates[0]?.candidate.isMeasured).toBe(false);
  });

  test("the least of the last samples counts, so one late sample changes nothing", () => {
    const table = near2();
    table.sampleRtt({ nodeId: "n1" }, 900);
    expect(pick(table)).toEqual(["m1", "nearest"]);
  });

  test("after a reset the old rows serve until all new ones are there", () => {
    const table = near2();
    table.apply({ kind: "reset", reason: "slow reader" });
    feed(table, [...app("a"), node("n2"), ...machine("m2", "n2")]);
    expect(pick(table)).toEqual(["m1", "nearest"]);
    table.apply({ kind: "caughtUp", watermark: { databaseId: "d", dbVersion: 9 } });
    expect(pick(table)).toEqual(["m2", "nearest"]);
  });
});

test("a machine that goes down during a reset is out before the last row is there", () => {
  const table = near2();
  table.apply({ kind: "reset", reason: "slow reader" });
  feed(table, machine("m1", "n1", { state: "stopped" }));
  expect(pick(table)).toEqual(["m2", "nearest"]);
});

test("a machine that is missing after a reset is out", () => {
  const table = near2();
  table.apply({ kind: "reset", reason: "slow reader" });
  feed(table, [...app("a"), node("n2"), ...machine("m2", "n2")]);
  table.apply({ kind: "caughtUp", watermark: { databaseId: "d", dbVersion: 9 } });
  expect(table.machineCount).toBe(1);
  expect(pick(table)).toEqual(["m2", "nearest"]);
});

describe("hostnames", () => {
  test("case, port and a final dot do not matter", () => {
    const table = near2();
    for (const host of ["A.Test", "a.test:8080", "a.test.", "A.TEST.:80"]) {
      expect(table.appOf(host)).toBe("a");
    }
  });

  test("a wildcard covers one level below its parent, and an exact name goes before it", () => {
    const table = tableWith([hostname("*.x.test", "wild"), hostname("own.x.test", "own")]);
    expect(table.appOf("any.x.test")).toBe("wild");
    expect(table.appOf("own.x.test")).toBe("own");
    expect(table.appOf("a.b.x.test")).toBeNull();
    expect(table.appOf("x.test")).toBeNull();
  });

  test("an unknown hostname is said to have no app", () => {
    expect(near2().pick("no.test", [], 0)).toEqual({ candidate: null, reason: "noApp" });
  });
});

describe("slots for requests in flight", () => {
  /** Goal: slots come back, however many services there have been, and one in use keeps counting. */
  test("there may be more services in a process's life than slots, and each is counted", () => {
    const load = new LoadSlots(LoadSlots.allocate({ capacity: 16 }));
    const tables = [load, new LoadSlots(load.planOfThread())].map(
      (one) => new RoutingTable({ standpoint: { region: "ams" }, load: one }),
    );
    for (const table of tables) feed(table, [...app("a"), ...machine("m9999", "n1")]);
    const [one, other] = tables as [RoutingTable, RoutingTable];
    const held = candidate(one, "m9999");
    one.started(held);
    for (const table of tables) feed(table, [deleted("machines", "m9999")]);
    for (let index = 0; index < 200; index += 1) {
      const id = `m${index}`;
      for (const table of tables) feed(table, machine(id, "n1"));
      fill(one, id, 1);
      expect(candidate(other, id).slot).not.toBe(0);
      expect(other.load.inFlight(candidate(other, id).slot)).toBe(1);
      one.finished(candidate(one, id));
      for (const table of tables) feed(table, [deleted("machines", id)]);
    }
    for (const table of tables) feed(table, machine("m9999", "n1"));
    expect(other.load.inFlight(candidate(other, "m9999").slot)).toBe(1);
    one.finished(held);
    expect(other.load.inFlight(candidate(other, "m9999").slot)).toBe(0);
    expect(one.stats.uncounted).toBe(0);
  });

  test("two threads that pick a machine's last place at once do not both get it", () => {
    const load = new LoadSlots(LoadSlots.allocate({ capacity: 16 }));
    const rows = [
      ...app("a"),
      ...machine("m1", "n1", { soft: 1n, hard: 1n }),
      ...machine("m2", "n2", { soft: 1n, hard: 1n }),
    ];
    const [one, other] = [load, new LoadSlots(load.planOfThread())].map((slots) => {
      const table = tableWith(rows, { load: slots });
      table.sampleRtt({ nodeId: "n1" }, 5);
      table.sampleRtt({ nodeId: "n2" }, 50);
      return table;
    }) as [RoutingTable, RoutingTable];
    const picked = [one, other].map((table) => table.pick("a.test", [], 0).candidate as Candidate);
    expect(picked.map(({ machineId }) => machineId)).toEqual(["m1", "m1"]);
    expect(one.started(picked[0]!)).toBe(true);
    expect(other.started(picked[1]!)).toBe(false);
    expect(pick(other)).toEqual(["m2", "spill"]);
    one.finished(picked[0]!);
    expect(other.started(picked[1]!)).toBe(true);
    expect(load.inFlight(picked[0]!.slot)).toBe(1);
  });

  test("services beyond the slots there are count nothing, and are counted once there is room", () => {
    const load = new LoadSlots(LoadSlots.allocate({ capacity: 4 }));
    const table = new RoutingTable({ standpoint: { region: "ams" }, load });
    const ids = ["m1", "m2", "m3", "m4", "m5"];
    feed(table, [...app("a"), ...ids.flatMap((id) => machine(id, "n1"))]);
    expect(table.stats.uncounted).toBe(2);
    feed(table, [deleted("machines", "m1")]);
    feed(table, [deleted("machines", "m2")]);
    // The rows say so again, and places that became free meanwhile are taken.
    feed(table, machine("m5", "n1", { region: "fra" }));
    expect(table.stats.uncounted).toBe(0);
  });

  test("a machine that moves to another app takes its requests in flight along", () => {
    const table = near2();
    table.started(candidate(table, "m1"));
    feed(table, [...app("b"), ...machine("m1", "n1", { appId: "b" })]);
    feed(table, machine("m1", "n1"));
    expect(table.load.inFlight(candidate(table, "m1").slot)).toBe(1);
  });
});

const ACTOR = "00112233-4455-6677-8899-aabbccddeeff";
let dbVersion = 0;

function pick(
  table: RoutingTable,
  excluded: readonly string[] = [],
  nowMs = 0,
): [string | null, string] {
  const result = table.pick("a.test", excluded, nowMs);
  return [result.candidate?.machineId ?? null, result.reason];
}

function candidate(table: RoutingTable, machineId: string): Candidate {
  const found = table
    .explain("a.test", 0)
    .candidates.find((view) => view.candidate.machineId === machineId);
  if (!found) throw new Error(`${machineId} is no candidate`);
  return found.candidate;
}

function fill(table: RoutingTable, machineId: string, requests: number): void {
  const one = candidate(table, machineId);
  for (let index = 0; index < requests; index++) table.started(one);
}

function near2(options: Partial<RoutingTableOptions> = {}): RoutingTable {
  const table = tableWith(
    [
      ...app("a"),
      node("n1"),
      node("n2"),
      ...machine("m1", "n1", { soft: 2n, hard: 4n }),
      ...machine("m2", "n2", { soft: 2n, hard: 4n }),
    ],
    options,
  );
  table.sampleRtt({ nodeId: "n1" }, 5);
  table.sampleRtt({ nodeId: "n2" }, 50);
  return table;
}

function tableWith(
  rows: readonly RowChange[],
  options: Partial<RoutingTableOptions> = {},
): RoutingTable {
  const table = new RoutingTable({ standpoint: { region: "ams" }, ...options });
  feed(table, rows);
  return table;
}

function feed(table: RoutingTable, rows: readonly RowChange[]): void {
  const watermark = { databaseId: "d", dbVersion: ++dbVersion };
  const event: ChangeStreamEvent = { kind: "rows", rows, watermark };
  table.apply(event);
}

function change(table: string, key: string[], row: RowChange["row"]): RowChange {
  return { table, key, row, actorId: ACTOR, version: 1 };
}

function deleted(table: string, ...key: string[]): RowChange {
  return change(table, key, null);
}

function hostname(name: string, appId: string): RowChange {
  return change("hostnames", [name], { hostname: name, app_id: appId });
}

function app(id: string): RowChange[] {
  return [change("apps", [id], { id }), hostname(`${id}.test`, id)];
}

function actorOf(nodeId: string): string {
  return `${nodeId}-actor`;
}

function node(id: string, place: { latitude?: number; longitude?: number } = {}): RowChange {
  const row = { id, actor_id: actorOf(id), latitude: null, longitude: null, ...place };
  return change("nodes", [id], row);
}

function machine(
  id: string,
  nodeId: string,
  options: {
    appId?: string;
    region?: string;
    state?: string;
    protocol?: string;
    address?: string;
    soft?: bigint;
    hard?: bigint;
  } = {},
): RowChange[] {
  const port = 8000 + Number(id.slice(1));
  return [
    change("machines", [id], {
      id,
      app_id: options.appId ?? "a",
      node_id: nodeId,
      region: options.region ?? "x",
      state: options.state ?? "started",
    }),
    change("services", [id, "web"], {
      machine_id: id,
      name: "web",
      protocol: options.protocol ?? "http",
      address: options.address ?? `127.0.0.1:${port}`,
      soft_limit: options.soft ?? 10n,
      hard_limit: options.hard ?? 20n,
    }),
  ];
}

function check(machineId: string, service: string, status: string): RowChange {
  return change("checks", [machineId, service, "up"], {
    machine_id: machineId,
    service,
    name: "up",
    status,
  });
}
