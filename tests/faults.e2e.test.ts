/**
 * Faults on purpose in a real edge alone: applying a row waits for ever on what nobody will say, or
 * uses up the memory. Either way the edge is bounced once, names the change, holds it back, and
 * serves on.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./asking-fixture.ts";
import { Cluster, type HostOptions } from "./cluster-fixture.ts";

const POISON = "poison";
/** Room for an edge that does little: a heap that is used up ends the process within a second. */
const SMALL_HEAP = "--max-old-space-size=160";
let cluster: Cluster;

beforeAll(async () => {
  const edge = (at: string, more: Partial<HostOptions> = {}): HostOptions => ({
    name: at,
    kind: "edge",
    config: {
      fault: {
        enabled: true,
        stall_row: { table: "machines", column: "region", value: POISON, at },
      },
      watchdog: { allow_fault_injection: true, apply_ms: at === "memory" ? 30_000 : 1_000 },
    },
    ...more,
  });
  const env = { NODE_OPTIONS: SMALL_HEAP };
  cluster = await Cluster.create([edge("deadlock"), edge("memory", { env })]);
  await cluster.start("deadlock", "memory");
});

afterAll(async () => {
  await cluster.close();
});

test("a deadlock at a row is a stall with the place and the change, and one bounce", async () => {
  const alert = await bouncedBy("deadlock");
  expect(alert).toMatchObject({ kind: "stall", signal: "SIGKILL", loop: "main", phase: "apply" });
  expect(alert["at"]).toContain("waitOnNothing");
});

test("a row that uses up the memory is a crash with the change, and one bounce", async () => {
  const alert = await bouncedBy("memory");
  expect(alert).toMatchObject({ kind: "crash", loop: "main", phase: "apply" });
  expect(alert["error"]).toMatch(/^the process aborted \(SIG(?:ABRT|TRAP)\)/);
});

/** Publishes the row at the edge itself, and waits until the edge is over it. */
async function bouncedBy(name: string): Promise<Readonly<Record<string, unknown>>> {
  const edge = cluster.host(name);
  const machine = await cluster.startMachine("one");
  await edge.publish("one.test", machine);
  await edge.routes("one.test", "one");
  const from = edge.log.length;
  const update = `UPDATE machines SET region = '${POISON}' WHERE id = 'one'`;
  // The edge may be gone before it has answered.
  await edge.api("POST", "/v1/transactions", [update]).catch((error: unknown) => error);
  const alert = await edge.logged("edge-bounced", { from });
  expect(alert["breadcrumb"]).toMatchObject({ what: "row", table: "machines", key: "one" });
  const held = await edge.logged("change-held", { from });
  expect(held).toMatchObject({ id: "c1", table: "machines", key: "one", app: "one" });
  await edge.logged("table-current", { from });
  await edge.routes("one.test", "one");
  await until("the change is held", async () => {
    return (await edge.metric('patina_quarantine_holds{kind="change"}')) === 1;
  });
  expect(edge.log.slice(from).filter(({ event }) => event === "edge-bounced")).toHaveLength(1);
  return alert;
}
