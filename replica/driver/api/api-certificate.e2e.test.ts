import { Agent, request } from "node:https";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { TLSSocket } from "node:tls";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import {
  createCertificateAuthority,
  issueServerCertificate,
} from "../certificates/certificates.ts";
import { ApiCertificate } from "./api-certificate.ts";
import { ApiFixture } from "./api-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-api-certificate-"));
const opened: ApiFixture[] = [];
afterAll(async () => {
  for (const api of opened) await api.stop();
  rmSync(folder, { recursive: true, force: true });
});
const files = { cert_file: join(folder, "api.pem"), key_file: join(folder, "api.key") };
const NOW_MS = Date.now();
const DAY_MS = 86_400_000;
const authority = await createCertificateAuthority({ nowMs: NOW_MS });

test("a renewed certificate is shown to new connections, and those that are open go on", async () => {
  await renew(365);
  const certificate = new ApiCertificate(files, quiet());
  const api = await ApiFixture.start({ server: { certificate } });
  opened.push(api);
  // A resumed session shows no certificate.
  const trust = { ca: authority.certificatePem, maxCachedSessions: 0 };
  const agent = new Agent({ ...trust, keepAlive: true, maxSockets: 1 });
  const first = await ask(api.port, agent);
  expect(first.status).toBe(200);
  const pem = await renew(300);
  api.server.refreshCertificate();
  const kept = await ask(api.port, agent);
  expect([kept.status, kept.localPort, kept.serial]).toEqual([200, first.localPort, first.serial]);
  agent.destroy();
  const fresh = new Agent(trust);
  const after = await ask(api.port, fresh);
  expect(after.serial).not.toBe(first.serial);
  expect(certificate.expiresAtMs).toBeLessThan(NOW_MS + 301 * DAY_MS);
  // Half a renewal is not taken.
  writeFileSync(files.key_file, pem.keyPem.replace("PRIVATE", "BROKEN"));
  api.server.refreshCertificate();
  expect((await ask(api.port, fresh)).serial).toBe(after.serial);
});

test("its expiry is told as that of the others, and files that cannot be read end the start", async () => {
  await renew(29.5);
  const events: string[] = [];
  const write = (line: string): void => {
    events.push((JSON.parse(line) as { event: string }).event);
  };
  const log = createLogger({ level: "info", nowMs: () => 0, write });
  const certificate = new ApiCertificate(files, log);
  certificate.refresh(NOW_MS);
  certificate.refresh(NOW_MS + 60_000);
  certificate.refresh(NOW_MS + 40 * DAY_MS);
  expect(events).toEqual(["certificate-expires", "certificate-expired"]);
  const nowhere = { ...files, cert_file: join(folder, "none.pem") };
  expect(() => new ApiCertificate(nowhere, log)).toThrow(
    expect.objectContaining({ code: "CERTIFICATE_UNREADABLE" }),
  );
});

async function renew(validityDays: number): Promise<{ certificatePem: string; keyPem: string }> {
  const leaf = { nowMs: NOW_MS, validityDays, addresses: ["127.0.0.1"] };
  const pems = await issueServerCertificate(authority, leaf);
  writeFileSync(files.cert_file, pems.certificatePem);
  writeFileSync(files.key_file, pems.keyPem);
  return pems;
}

function quiet(): ReturnType<typeof createLogger> {
  return createLogger({ level: "error", nowMs: () => 0, write: () => undefined });
}

function ask(
  port: number,
  agent: Agent,
): Promise<{ status: number | undefined; localPort: number | undefined; serial: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: "127.0.0.1", port, path: "/v1/status", agent }, (response) => {
      const socket = response.socket as TLSSocket;
      const { localPort } = socket;
      const serial = socket.getPeerCertificate().serialNumber;
      response
        .resume()
        .on("end", () => resolve({ status: response.statusCode, localPort, serial }));
    });
    outgoing.on("error", reject).end();
  });
}
