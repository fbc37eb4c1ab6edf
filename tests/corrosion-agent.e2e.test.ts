/**
 * `patina agent` on a Corrosion config file as it is: bound to all addresses, TLS without client
 * certificates, an API of several addresses that is open to all, and values in the environment.
 */
import { writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { chooseHost } from "../replica/driver/advertised-host.ts";
import {
  createCertificateAuthority,
  issueServerCertificate,
} from "../replica/driver/certificates/certificates.ts";
import { send, until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";

const chosen = chooseHost("0.0.0.0", networkInterfaces());
let cluster: Cluster;
let one: TestHost;
let other: TestHost;

beforeAll(async () => {
  const env: Record<string, string> = { GOSSIP__NOISE: "of another program" };
  cluster = await Cluster.create([
    { name: "one", kind: "worker" },
    { name: "other", kind: "worker", env },
  ]);
  one = cluster.host("one");
  other = cluster.host("other");
  env["GOSSIP__BOOTSTRAP"] = JSON.stringify([`${chosen}:${one.ports.gossip}`]);
  const authority = await createCertificateAuthority({ nowMs: Date.now() });
  const validity = { nowMs: Date.now() };
  for (const host of [one, other]) {
    const server = await issueServerCertificate(authority, { ...validity, addresses: [chosen] });
    writeFileSync(join(host.folder, "ca.pem"), authority.certificatePem);
    writeFileSync(join(host.folder, "server.pem"), server.certificatePem);
    writeFileSync(join(host.folder, "server.key"), server.keyPem);
    writeFileSync(host.configFile, corrosionFile(host));
  }
  await cluster.start("one", "other");
});

afterAll(async () => {
  await cluster.close();
});

test("they find each other at addresses of the machine and exchange state", async () => {
  await until("the other", async () => (await one.status()).members.length === 1);
  const [member] = (await one.status()).members;
  expect(member).toMatchObject({ address: `${chosen}:${other.ports.gossip}`, state: "alive" });
  await one.api("POST", "/v1/transactions", ["INSERT INTO t (id, v) VALUES (1, 'hello')"]);
  await until("the row", async () => (await query(other)).includes("hello"));
});

test("every address of the API is served", async () => {
  await until("the row", async () => (await query(one, one.httpPort)).includes("hello"));
});

test("they say what they chose and what stands open", () => {
  const events = one.log.map(({ event }) => event);
  expect(events.filter((event) => event === "gossip-address-chosen")).toHaveLength(1);
  expect(events.filter((event) => event === "gossip-open")).toHaveLength(1);
  expect(one.log.find(({ event }) => event === "gossip-address-chosen")).toMatchObject({
    host: chosen,
  });
  const texts = one.log.filter(({ event }) => event === "text").map(({ msg }) => msg);
  expect(texts).toEqual([
    expect.stringMatching(new RegExp(`api\\.addr: OPEN TO ALL: .*0\\.0\\.0\\.0:${one.httpPort} `)),
  ]);
});

async function query(host: TestHost, port = host.ports.api): Promise<string> {
  const body = JSON.stringify("SELECT v FROM t");
  return (await send(port, "/v1/queries", { method: "POST", body })).text;
}

/** As a Corrosion node's: no section of Patina's own. */
function corrosionFile(host: TestHost): string {
  return host.corrosionConfig({
    gossip: {
      addr: `0.0.0.0:${host.ports.gossip}`,
      tls: { cert_file: "server.pem", key_file: "server.key", ca_file: "ca.pem" },
    },
    api: { bind_addr: [host.apiAddress, `0.0.0.0:${host.httpPort}`] },
  });
}
