import { expect, test } from "vitest";
import type { PatinaError } from "#base/errors.ts";
import { createCertificateAuthority } from "../certificates/certificates.ts";
import { createTestCertificates, openEndpoint, type Endpoint } from "./transport-fixture.ts";

const NOW_MS = Date.now();
const DAY_MS = 86_400_000;
const authority = await createCertificateAuthority({ nowMs: NOW_MS });
const stranger = await createCertificateAuthority({ nowMs: NOW_MS, commonName: "Stranger" });
const good = await createTestCertificates({ authority });

test("a server of another authority is refused by the dialler", async () => {
  const foreign = await createTestCertificates({ authority: stranger });
  expect(await dialRefusal(good, foreign)).toMatchObject({
    code: "TRANSPORT_TLS",
    details: { side: "local", reason: expect.stringContaining("unknown authority") },
  });
});

test("an expired server certificate is refused by the dialler", async () => {
  const nowMs = NOW_MS - 40 * DAY_MS;
  const expired = await createTestCertificates({ authority, nowMs, validityDays: 30 });
  expect(await dialRefusal(good, expired)).toMatchObject({
    code: "TRANSPORT_TLS",
    details: { side: "local", reason: expect.stringContaining("certificate expired") },
  });
});

test("a certificate that does not name the dialled address is refused", async () => {
  const elsewhere = await createTestCertificates({ authority, addresses: ["127.0.0.2", "::1"] });
  expect(await dialRefusal(good, elsewhere)).toMatchObject({
    code: "TRANSPORT_TLS",
    details: { reason: expect.stringContaining("does not name 127.0.0.1") },
  });
});

test("a client of another authority is refused by the server, and told why", async () => {
  // The dialler completes its handshake before the server has seen the certificate (TLS 1.3), so
  // the refusal breaks a connection that was up.
  const foreign = await createTestCertificates({ authority: stranger, trusted: authority });
  await using left = await openEndpoint({ certificates: foreign });
  await using right = await openEndpoint({ certificates: good });
  const stream = await left.transport.openBi(right.transport.local);
  const error = await new Promise<PatinaError>((resolve) => stream.onBroken(resolve));
  expect(error).toMatchObject({ code: "TRANSPORT_TLS", details: { side: "peer" } });
  await left.events.until(() => left.events.edges.length === 2);
  expect(left.events.edges[1]?.reason).toContain("refused by the peer");
  await expect(left.transport.openBi(right.transport.local)).rejects.toMatchObject({
    code: "TRANSPORT_CONNECT",
    details: { retryAfterMs: expect.any(Number) },
  });
  expect(right.transport.stats.handshakesAccepted).toBe(0);
  expect(right.transport.stats.handshakesFailed).toBe(1);
});

test("reloaded certificates count for later handshakes; connections stay", async () => {
  await using left = await openEndpoint({ certificates: good });
  await using right = await openEndpoint({ certificates: good });
  const target = right.transport.local;
  const send = (text: string): Promise<boolean> =>
    left.transport.sendUni(target, [Buffer.from(text)]);
  expect(await send("before")).toBe(true);

  const renewed = await createTestCertificates({ authority: stranger });
  right.transport.reloadCertificates(renewed);
  expect(await send("on the old connection")).toBe(true);
  await right.events.until(() => right.events.unis.length === 2);
  expect(left.events.edges.length).toBe(1);

  left.transport.forget(target, "test");
  expect(await send("with the old certificates")).toBe(false);
  left.transport.reloadCertificates(renewed);
  left.transport.forget(target, "test");
  expect(await send("with the new certificates")).toBe(true);
  await right.events.until(() => right.events.unis.length === 3);
});

test("certificates that cannot be used are refused at once, and the old ones stay", async () => {
  await using left = await openEndpoint({ certificates: good });
  await using right = await openEndpoint({ certificates: good });
  const other = await createTestCertificates({ authority });
  const unusable = [
    { ...good, serverKeyPem: other.serverKeyPem },
    { ...good, clientCertificatePem: "nonsense" },
    { ...good, clientKeyPem: "" },
    { ...good, authoritiesPem: "" },
    { ...good, authoritiesPem: good.serverCertificatePem },
  ];
  for (const certificates of unusable) {
    const refusal = expect.objectContaining({ code: "TRANSPORT_TLS" });
    expect(() => left.transport.reloadCertificates(certificates)).toThrow(refusal);
    await expect(openEndpoint({ certificates })).rejects.toEqual(refusal);
  }
  expect(await left.transport.sendUni(right.transport.local, [Buffer.from("x")])).toBe(true);
});

type Certificates = typeof good;

async function dialRefusal(ours: Certificates, theirs: Certificates): Promise<unknown> {
  await using left: Endpoint = await openEndpoint({ certificates: ours });
  await using right = await openEndpoint({ certificates: theirs });
  const refusal = await left.transport.openBi(right.transport.local).catch((error) => error);
  expect(left.events.edges.every(({ state }) => state === "down")).toBe(true);
  expect(right.events.streams.length).toBe(0);
  return refusal;
}
