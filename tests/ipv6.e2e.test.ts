/** Everything on the IPv6 loopback: gossip, certificates, API, metrics, HTTP and the machine. */
import { networkInterfaces } from "node:os";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { get, until } from "./asking-fixture.ts";
import { Cluster } from "./cluster-fixture.ts";

const hasIpv6 = Object.values(networkInterfaces())
  .flat()
  .some((one) => one?.address === "::1");

describe.skipIf(!hasIpv6)("on ::1", () => {
  let cluster: Cluster;

  beforeAll(async () => {
    cluster = await Cluster.create([
      { name: "worker", kind: "worker", ip: "::1" },
      { name: "edge", kind: "edge", ip: "::1", bootstrap: ["worker"] },
    ]);
    await cluster.start("worker", "edge");
  });

  afterAll(async () => {
    await cluster.close();
  });

  test("a machine published at a worker is routed by an edge", async () => {
    const [worker, edge] = [cluster.host("worker"), cluster.host("edge")];
    const machine = await cluster.startMachine("six", "::1");
    expect(machine.address).toMatch(/^\[::1\]:\d+$/);
    await worker.api("PUT", "/v1/hostnames/six.test", { app: "six" });
    const put = await worker.api("PUT", "/v1/machines/six", machine.document("six"));
    expect(put).toMatchObject({ status: 200 });
    await edge.routes("six.test", "six");
  });

  test("members know each other by their IPv6 addresses, and nothing is needed", async () => {
    const [worker, edge] = [cluster.host("worker"), cluster.host("edge")];
    await until("both are members of each other", async () => {
      const known = [(await worker.status()).members, (await edge.status()).members];
      const addresses = known.map((members) => members.map(({ address }) => address));
      const [atWorker = [], atEdge = []] = addresses;
      return atWorker.includes(edge.gossip) && atEdge.includes(worker.gossip);
    });
    await until("the edge needs nothing", async () => (await edge.status()).needs === 0);
  });

  test("the metrics port answers", async () => {
    const { status, text } = await get(cluster.host("edge").metricsPort, "/metrics", { ip: "::1" });
    expect(status).toBe(200);
    expect(text).toContain("patina_http_requests_total");
  });
});
