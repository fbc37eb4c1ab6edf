/**
 * HTTPS of a real edge with two data-plane threads: its sockets outlive a bounce, plain requests are
 * sent on to it, and the certificate's end is in the metrics.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Agent, request } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePorts } from "../bin/demo/ports.ts";
import {
  createCertificateAuthority,
  issueServerCertificate,
} from "../replica/driver/certificates/certificates.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";

let cluster: Cluster;
let edge: TestHost;
let port: number;

beforeAll(async () => {
  [port = 0] = await freePorts(1);
  const tls = {
    addr: `127.0.0.1:${port}`,
    certificates: [{ cert_file: "server.pem", key_file: "server.key" }],
    redirect_http: true,
    public_port: port,
    hsts_max_age_secs: 3600,
  };
  const proxy = { threads: 2, tls };
  cluster = await Cluster.create([{ name: "edge", kind: "edge", config: { proxy } }]);
  edge = cluster.host("edge");
  await cluster.start("edge");
});

afterAll(async () => {
  await cluster.close();
});

test("HTTPS answers, before and after a bounce", async () => {
  expect(await answer()).toMatchObject({
    status: 404,
    error: "ROUTE_NO_APP",
    hsts: "max-age=3600",
  });
  const pid = edge.edgePid();
  process.kill(pid, "SIGKILL");
  await until("the next process answers", async () => {
    // One that the killed process had accepted is reset.
    const after = await answer().catch(() => null);
    return after?.error === "ROUTE_NO_APP";
  });
  expect(edge.edgePid()).not.toBe(pid);
});

test("a plain request is sent on to it", async () => {
  const redirect = await edge.request("shop.test", "/a?b");
  expect(redirect.status).toBe(301);
  expect(redirect.headers.location).toBe(`https://shop.test:${port}/a?b`);
});

test("the certificate's end and the handshakes are in the metrics", async () => {
  const days = (await edge.metric("patina_tls_certificate_expiry_seconds")) - Date.now() / 1000;
  expect(days / 86_400).toBeCloseTo(365, 0);
  expect(await edge.metric('patina_tls_handshakes_total{kind="full"}')).toBeGreaterThan(0);
});

test("a new certificate is shown after SIGHUP", async () => {
  const authority = await createCertificateAuthority({ nowMs: Date.now() });
  const addresses = ["127.0.0.1"];
  const renewed = await issueServerCertificate(authority, { nowMs: Date.now(), addresses });
  const from = edge.log.length;
  writeFileSync(join(edge.folder, "server.key"), renewed.keyPem);
  writeFileSync(join(edge.folder, "server.pem"), renewed.certificatePem);
  edge.signal("SIGHUP");
  await edge.logged("certificates-reloaded", { from });
  // Of two threads, the other may be a moment behind.
  await until("the new one is shown", async () => {
    const after = await answer(authority.certificatePem).catch(() => null);
    return after?.error === "ROUTE_NO_APP";
  });
});

async function answer(ca = readFileSync(join(edge.folder, "ca.pem"), "utf8")) {
  const agent = new Agent({ connect: { ca }, pipelining: 0 });
  try {
    const { statusCode, headers, body } = await request(`https://127.0.0.1:${port}/`, {
      dispatcher: agent,
    });
    await body.dump();
    return {
      status: statusCode,
      error: headers["patina-error"],
      hsts: headers["strict-transport-security"],
    };
  } finally {
    await agent.close();
  }
}
