import { createPrivateKey, X509Certificate } from "node:crypto";
import { describe, expect, test } from "vitest";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
} from "./certificates.ts";

const NOW_MS = Date.UTC(2026, 0, 1);
const ACTOR_ID = "0190a2b1-6a2e-7c31-9c6b-0123456789ab";

describe.each(["P-256", "P-384"] as const)("with curve %s", (curve) => {
  test("a server leaf chains to its authority and names addresses of both families", async () => {
    const authority = await createCertificateAuthority({ nowMs: NOW_MS, curve });
    const leaf = await issueServerCertificate(authority, {
      nowMs: NOW_MS,
      curve,
      addresses: ["127.0.0.1", "::1", "2001:db8::7"],
      names: ["edge.example"],
      actorId: ACTOR_ID,
    });

    const issuer = new X509Certificate(authority.certificatePem);
    const certificate = new X509Certificate(leaf.certificatePem);
    expect(issuer.ca).toBe(true);
    expect(issuer.checkIssued(issuer)).toBe(true);
    expect(certificate.checkIssued(issuer)).toBe(true);
    expect(certificate.verify(issuer.publicKey)).toBe(true);
    expect(certificate.ca).toBe(false);
    expect(certificate.checkPrivateKey(createPrivateKey(leaf.keyPem))).toBe(true);
    expect(certificate.checkIP("127.0.0.1")).toBe("127.0.0.1");
    expect(certificate.checkIP("::1")).toBeDefined();
    expect(certificate.checkIP("2001:db8::7")).toBeDefined();
    expect(certificate.checkIP("127.0.0.2")).toBeUndefined();
    expect(certificate.checkHost("edge.example")).toBe("edge.example");
    expect(certificate.subjectAltName).toContain(`URI:urn:uuid:${ACTOR_ID}`);
    expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
  });
});

test("a client leaf has an empty subject and may only authenticate clients", async () => {
  const authority = await createCertificateAuthority({ nowMs: NOW_MS });
  const leaf = await issueClientCertificate(authority, { nowMs: NOW_MS });
  const certificate = new X509Certificate(leaf.certificatePem);
  expect(certificate.subject ?? "").toBe("");
  expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
  expect(certificate.verify(new X509Certificate(authority.certificatePem).publicKey)).toBe(true);
});

test("an authority lives five years and a leaf one, counted from the time given", async () => {
  const authority = await createCertificateAuthority({ nowMs: NOW_MS });
  const leaf = await issueClientCertificate(authority, { nowMs: NOW_MS });
  const daysUntilEnd = (pem: string): number =>
    (new X509Certificate(pem).validToDate.getTime() - NOW_MS) / 86_400_000;
  expect(daysUntilEnd(authority.certificatePem)).toBe(1825);
  expect(daysUntilEnd(leaf.certificatePem)).toBe(365);
  const startMs = new X509Certificate(leaf.certificatePem).validFromDate.getTime();
  expect(startMs).toBe(NOW_MS - 300_000);
});

test("an authority on one curve signs a leaf on the other", async () => {
  const authority = await createCertificateAuthority({ nowMs: NOW_MS, curve: "P-384" });
  const leaf = await issueClientCertificate(authority, { nowMs: NOW_MS, curve: "P-256" });
  const issuer = new X509Certificate(authority.certificatePem);
  expect(new X509Certificate(leaf.certificatePem).verify(issuer.publicKey)).toBe(true);
});

test("unusable input is refused by code and issues nothing", async () => {
  const authority = await createCertificateAuthority({ nowMs: NOW_MS });
  const other = await createCertificateAuthority({ nowMs: NOW_MS });
  const server = { nowMs: NOW_MS, addresses: ["127.0.0.1"] };
  const refusal = { code: "CERTIFICATE_INPUT" };
  await expect(
    issueServerCertificate(authority, { nowMs: NOW_MS, addresses: ["127.0.0.1:80"] }),
  ).rejects.toMatchObject({ ...refusal, details: { found: "127.0.0.1:80" } });
  await expect(
    issueServerCertificate(authority, { nowMs: NOW_MS, addresses: [] }),
  ).rejects.toMatchObject(refusal);
  await expect(
    issueServerCertificate({ ...authority, keyPem: other.keyPem }, server),
  ).rejects.toMatchObject(refusal);
  await expect(
    issueServerCertificate({ ...authority, certificatePem: "nonsense" }, server),
  ).rejects.toMatchObject(refusal);
  const leaf = await issueServerCertificate(authority, server);
  await expect(issueServerCertificate(leaf, server)).rejects.toMatchObject(refusal);
});
