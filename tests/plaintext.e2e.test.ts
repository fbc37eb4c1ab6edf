/** Replicas on Corrosion's config files with `plaintext = true`: open to anybody. */
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";

let cluster: Cluster;
let one: TestHost;
let other: TestHost;

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "one", kind: "worker" },
    { name: "other", kind: "worker" },
    { name: "stranger", kind: "worker", bootstrap: ["one"], config: { log: { level: "debug" } } },
  ]);
  one = cluster.host("one");
  other = cluster.host("other");
  for (const host of [one, other]) writeFileSync(host.configFile, corrosionFile(host));
  await cluster.start("one");
  await cluster.start("other");
});

afterAll(async () => {
  await cluster.close();
});

test("they find each other, say that anybody may join, and exchange state", async () => {
  await until("the other", async () => (await one.status()).members.length === 1);
  expect(one.log.filter(({ event }) => event === "gossip-open")).toHaveLength(1);
  const insert = "INSERT INTO t (id, v) VALUES (1, 'hello')";
  expect((await runPatina(["-c", one.configFile, "exec", insert])).code).toBe(0);
  await until("the row", async () => {
    const answer = await runPatina(["-c", other.configFile, "query", "SELECT v FROM t"]);
    return answer.stdout === "hello\n";
  });
});

test("a replica with certificates of a cluster's own is a stranger to them", async () => {
  const stranger = cluster.host("stranger");
  stranger.start();
  expect((await stranger.logged("connection")).msg).toMatch(/ down: /);
  const answer = await runPatina(["-c", stranger.configFile, "cluster", "members"]);
  expect(answer).toMatchObject({ code: 0, stdout: "" });
  expect((await one.status()).members.map(({ address }) => address)).toEqual([other.gossip]);
});

/** As a Corrosion node's: no section of Patina's own. */
function corrosionFile(host: TestHost): string {
  const bootstrap = [host === one ? other.gossip : one.gossip];
  return host.corrosionConfig({
    gossip: { addr: host.gossip, bootstrap, plaintext: true },
    log: { format: "json" },
  });
}
