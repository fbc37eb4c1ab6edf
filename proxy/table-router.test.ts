import { expect, test } from "vitest";
import type { RowChange } from "../replica/types.ts";
import { RoutingTable } from "../routing/routing-table.ts";
import { TableRouter } from "./table-router.ts";
import type { Pick, PickRequest, Upstream } from "./types.ts";

test("a pick is the table's candidate with its reason", () => {
  const { router } = routerWith(machine("m1", 80));
  expect(router.pick(request({}))).toMatchObject({
    kind: "upstream",
    upstream: { machineId: "m1", host: "127.0.0.1", port: 80, serviceName: "web" },
    reason: "nearest",
  });
});

test("the same service is the same object each time, and a pick allocates no answer", () => {
  const { router } = routerWith(machine("m1", 80));
  const first = router.pick(request({}));
  const upstream = upstreamOf(first);
  expect(router.pick(request({}))).toBe(first);
  expect(upstreamOf(router.pick(request({})))).toBe(upstream);
});

test.each<[string, Partial<PickRequest>, string]>([
  ["an unknown host", { host: "other.test" }, "ROUTE_NO_APP"],
  [
    "an app whose only machine was tried",
    { excluded: ["m1/web@127.0.0.1:80"] },
    "ROUTE_NO_MACHINE",
  ],
])("%s has a code of its own", (_name, asked, code) => {
  const { router } = routerWith(machine("m1", 80));
  expect(router.pick(request(asked))).toEqual({ kind: "none", code });
});

test("machines at their hard limit are full until a request is over", () => {
  const { router } = routerWith(machine("m1", 80, 1n));
  const upstream = upstreamOf(router.pick(request({})));
  router.started(upstream);
  expect(router.pick(request({}))).toEqual({ kind: "none", code: "ROUTE_ALL_FULL" });
  router.finished(upstream, "answered");
  expect(router.pick(request({})).kind).toBe("upstream");
});

test("before the table is ready, nothing found says so instead of denying the app", () => {
  const { router } = routerWith(machine("m1", 80));
  router.isReady = false;
  expect(router.pick(request({ host: "other.test" }))).toEqual({
    kind: "none",
    code: "ROUTE_NOT_READY",
  });
  expect(router.pick(request({})).kind).toBe("upstream");
});

test("a failed connect takes the machine out at once, and a connect brings it back", () => {
  const { router } = routerWith([...machine("m1", 80), ...machine("m2", 81)]);
  const first = upstreamOf(router.pick(request({})));
  router.connectFailed(first, "ECONNREFUSED");
  const second = upstreamOf(router.pick(request({})));
  expect(second.machineId).not.toBe(first.machineId);
  router.connectFailed(second, "ETIMEDOUT");
  expect(router.pick(request({}))).toMatchObject({ reason: "lastResort" });
  router.connectRtt(first, 1);
  expect(router.pick(request({}))).toMatchObject({
    upstream: { machineId: first.machineId },
    reason: "nearest",
  });
});

function routerWith(rows: readonly RowChange[]): { router: TableRouter } {
  const table = new RoutingTable({ standpoint: { region: "ams" } });
  const watermark = { databaseId: "d", dbVersion: 1 };
  const hostname = change("hostnames", ["a.test"], { hostname: "a.test", app_id: "a" });
  table.apply({ kind: "rows", rows: [hostname, ...rows], watermark });
  const router = new TableRouter(table, () => 0);
  router.isReady = true;
  return { router };
}

function machine(id: string, port: number, hardLimit = 0n): RowChange[] {
  const row = { id, app_id: "a", node_id: `${id}-host`, region: "ams", state: "started" };
  const service = {
    machine_id: id,
    name: "web",
    address: `127.0.0.1:${port}`,
    protocol: "http",
    soft_limit: 0n,
    hard_limit: hardLimit,
  };
  return [change("machines", [id], row), change("services", [id, "web"], service)];
}

function change(table: string, key: string[], row: RowChange["row"]): RowChange {
  return { table, key, row, actorId: "", version: 1 };
}

function request(asked: Partial<PickRequest>): PickRequest {
  return { host: "a.test", method: "GET", target: "/", attempt: 0, excluded: [], ...asked };
}

function upstreamOf(pick: Pick): Upstream {
  if (pick.kind === "none") throw new Error(pick.code);
  return pick.upstream;
}
