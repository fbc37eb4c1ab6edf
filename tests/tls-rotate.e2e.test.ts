/** A cluster of two goes over to another authority, one command a step, each of them typed twice. */
import { X509Certificate } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina, type Ending } from "./process-fixture.ts";

let cluster: Cluster;
let ca: string;
let hosts: readonly TestHost[];

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "one", kind: "worker" },
    { name: "other", kind: "worker", bootstrap: ["one"] },
  ]);
  hosts = [cluster.host("one"), cluster.host("other")];
  ca = join(cluster.folder, "ca");
  mkdirSync(ca);
  writeFileSync(join(ca, "ca.pem"), readFileSync(join(hosts[0]!.folder, "ca.pem")));
  writeFileSync(join(ca, "ca.key"), cluster.authorityKeyPem, { mode: 0o600 });
  await cluster.start("one", "other");
  for (const host of hosts) {
    await until("both are members", async () => (await host.status()).members.length === 1);
  }
});

afterAll(async () => {
  await cluster.close();
});

test("every step is safe to repeat, and none goes ahead of a member", async () => {
  const [one, other] = hosts as [TestHost, TestHost];
  const former = fingerprint(join(ca, "ca.pem"));
  expect((await rotate("trust", one)).stderr).toContain("patina tls rotate begin makes it");
  await twice("begin", null);
  await step("trust", one);
  // The other one would not know whom to ask about it.
  const early = await rotate("issue", one);
  expect(early.code).toBe(EXIT.config);
  expect(early.stderr).toContain(`${other.gossip}: refused by the peer: unknown authority`);
  await step("trust", other);
  await step("issue", one);
  expect((await rotate("forget", one)).stderr).toContain(`${other.gossip}: peer's certificate`);
  await step("issue", other);
  await step("forget", one);
  await step("forget", other);
  await twice("end", null);
  for (const host of hosts) {
    expect(fingerprint(join(host.folder, "ca.pem"))).toBe(fingerprint(join(ca, "ca.pem")));
    await until("both are members", async () => {
      const { members } = await host.status();
      return members.every(({ state }) => state === "alive");
    });
  }
  expect(fingerprint(join(ca, "ca.pem"))).not.toBe(former);
  // What is written on one still arrives on the other, over connections made anew.
  await other.api("POST", "/v1/transactions", ["INSERT INTO apps (id, name) VALUES ('a', 'A')"]);
  await until("the row is there", async () => {
    const { text } = await one.api("POST", "/v1/queries", "SELECT name FROM apps");
    return text.includes('"A"');
  });
});

/** Typed twice on the first host and once on the other, then taken over by its replica. */
async function step(name: string, host: TestHost): Promise<void> {
  const from = host.log.length;
  if (host === hosts[0]) await twice(name, host);
  else expect(await rotate(name, host)).toMatchObject({ code: EXIT.ok, stderr: "" });
  host.signal("SIGHUP");
  await host.logged("gossip-certificates-reloaded", { from });
}

async function twice(name: string, host: TestHost | null): Promise<void> {
  const first = await rotate(name, host);
  expect(first).toMatchObject({ code: EXIT.ok, stderr: "" });
  const again = await rotate(name, host);
  expect(again).toMatchObject({ code: EXIT.ok, stderr: "" });
  expect(again.stdout).toMatch(/already|no rotation is under way/);
}

async function rotate(name: string, host: TestHost | null): Promise<Ending> {
  const config = host === null ? [] : ["--config", host.configFile];
  return await runPatina(["tls", "rotate", name, "--ca", ca, ...config]);
}

function fingerprint(file: string): string {
  return new X509Certificate(readFileSync(file)).fingerprint256;
}
