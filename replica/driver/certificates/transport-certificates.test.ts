import { X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import { gossipSection } from "../../config.ts";
import { transportCertificates, transportProtection } from "./transport-certificates.ts";

const NOW_MS = 1_750_000_000_000;

test("without authentication each replica trusts what any other makes, for its own address", async () => {
  const [one, other] = await Promise.all([
    transportCertificates(open("192.0.2.1:8787"), NOW_MS),
    transportCertificates(open("[2001:db8::1]:8787"), NOW_MS + 86_400_000),
  ]);
  const authority = new X509Certificate(one.authoritiesPem ?? "");
  for (const pems of [other.server, other.client]) {
    const leaf = new X509Certificate(pems?.certificatePem ?? "");
    expect(leaf.verify(authority.publicKey)).toBe(true);
    expect(leaf.checkIssued(authority)).toBe(true);
  }
  expect(new X509Certificate(other.server.certificatePem).checkIP("2001:db8::1")).toBeDefined();
});

test("with plaintext the transport has no certificates, and resets known by the replica's id", async () => {
  const actorId = "00112233-4455-6677-8899-aabbccddeeff";
  const protection = await transportProtection(open("192.0.2.1:8787"), actorId, NOW_MS);
  expect(protection).toEqual({ resetSeed: actorId });
});

test("a file that is not there is told with its key", async () => {
  const gossip = gossipSection.parse({
    addr: "127.0.0.1:0",
    tls: {
      cert_file: "/nowhere/cert.pem",
      key_file: "/nowhere/key.pem",
      ca_file: "/nowhere/ca.pem",
      client: { cert_file: "/nowhere/c.pem", key_file: "/nowhere/k.pem" },
    },
  });
  await expect(transportCertificates(gossip, NOW_MS)).rejects.toMatchObject({
    code: "CERTIFICATE_UNREADABLE",
    message: expect.stringContaining("gossip.tls.ca_file"),
  });
});

function open(addr: string): ReturnType<typeof gossipSection.parse> {
  return gossipSection.parse({ addr, plaintext: true });
}
