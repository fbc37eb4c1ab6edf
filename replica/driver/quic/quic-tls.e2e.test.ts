import { expect, test } from "vitest";
import type { PatinaError } from "#base/errors.ts";
import { createCertificateAuthority } from "../certificates/certificates.ts";
import { mayBeAmong } from "./peer-identity.ts";
import { createTestCertificates, openEndpoint, type Endpoint } from "./transport-fixture.ts";

const NOW_MS = Date.now();
const DAY_MS = 86_400_000;
const authority = await createCertificateAuthority({ nowMs: NOW_MS });
const stranger = await createCertificateAuthority({ nowMs: NOW_MS, commonName: "Stranger" });
const ACTOR_ONE = "0190a2b1-6a2e-7c31-9c6b-0123456789ab";
const ACTOR_OTHER = "0190a2b1-6a2e-7c31-9c6b-0123456789ac";
const ACTOR_THIRD = "0190a2b1-6a2e-7c31-9c6b-0123456789ad";
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

test("without a client certificate of its own a replica asks for none, and dials as before", async () => {
  const open = { ...good, client: null };
  await using left = await openEndpoint({ certificates: open });
  await using right = await openEndpoint({ certificates: open });
  const { local } = right.transport;
  expect(await left.transport.sendUni(local, [Buffer.from("hello")])).toBe(true);
  await right.events.until(() => right.events.unis.length === 1);

  const foreign = await createTestCertificates({ authority: stranger });
  expect(await dialRefusal(open, { ...foreign, client: null })).toMatchObject({
    code: "TRANSPORT_TLS",
    details: { side: "local", reason: expect.stringContaining("unknown authority") },
  });
});

test("a server with one demands one of those who dial, who are told so", async () => {
  await using left = await openEndpoint({ certificates: { ...good, client: null } });
  await using right = await openEndpoint({ certificates: good });
  const stream = await left.transport.openBi(right.transport.local);
  const error = await new Promise<PatinaError>((resolve) => stream.onBroken(resolve));
  expect(error).toMatchObject({ code: "TRANSPORT_TLS", details: { side: "peer" } });
  expect(right.transport.stats).toMatchObject({ handshakesAccepted: 0, handshakesFailed: 1 });
});

test("a dialler that checks nothing takes a stranger at an address that nobody vouches for", async () => {
  const trusting = { ...good, authoritiesPem: null, client: null, checksServers: false };
  const foreign = await createTestCertificates({ authority: stranger, addresses: ["192.0.2.1"] });
  await using left = await openEndpoint({ certificates: trusting });
  await using right = await openEndpoint({ certificates: { ...foreign, client: null } });
  const send = async (from: Endpoint, to: Endpoint): Promise<boolean> =>
    await from.transport.sendUni(to.transport.local, [Buffer.from("hello")]);
  expect(await send(left, right)).toBe(true);
  await right.events.until(() => right.events.unis.length === 1);
  // The other way the certificate is checked.
  expect(await send(right, left)).toBe(false);
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
    { ...good, server: { ...good.server, keyPem: other.server.keyPem } },
    { ...good, client: { ...other.server, certificatePem: "nonsense" } },
    { ...good, client: { ...other.server, keyPem: "" } },
    { ...good, authoritiesPem: "" },
    { ...good, authoritiesPem: good.server.certificatePem },
  ];
  for (const certificates of unusable) {
    const refusal = expect.objectContaining({ code: "TRANSPORT_TLS" });
    expect(() => left.transport.reloadCertificates(certificates)).toThrow(refusal);
    await expect(openEndpoint({ certificates })).rejects.toEqual(refusal);
  }
  expect(await left.transport.sendUni(right.transport.local, [Buffer.from("x")])).toBe(true);
});

test("with actors verified each side is told whom the other's certificate names", async () => {
  const [one, other] = [await named(ACTOR_ONE), await named(ACTOR_OTHER)];
  await using left = await openEndpoint({ certificates: one });
  await using right = await openEndpoint({ certificates: other });
  const stream = await left.transport.openBi(right.transport.local);
  stream.onFrame(() => undefined);
  await stream.send(Buffer.from("x"));
  await right.events.until(() => right.events.streams.length > 0);
  // A datagram that overtakes the handshake is dropped: only here is the server's side open.
  left.transport.sendDatagram(right.transport.local, Buffer.from("hello"));
  await right.events.until(() => right.events.datagrams.length > 0);
  expect(stream.peerActorId).toBe(ACTOR_OTHER);
  expect(right.events.streams[0]?.peerActorId).toBe(ACTOR_ONE);
  expect(right.events.datagrams[0]?.actorId).toBe(ACTOR_ONE);
});

test("with actors verified a certificate of the authority that names none is refused, either way", async () => {
  const one = await named(ACTOR_ONE);
  expect(await dialRefusal(one, good)).toMatchObject({
    code: "TRANSPORT_TLS",
    details: { reason: expect.stringContaining("names no actor") },
  });
  await using left = await openEndpoint({ certificates: good });
  await using right = await openEndpoint({ certificates: one });
  const stream = await left.transport.openBi(right.transport.local);
  const error = await new Promise<PatinaError>((resolve) => stream.onBroken(resolve));
  expect(error).toMatchObject({ code: "TRANSPORT_TLS", details: { side: "peer" } });
  expect(right.events.streams).toEqual([]);
});

test("whoever answers at a member's address is that member, or is refused", async () => {
  const [one, other] = [await named(ACTOR_ONE), await named(ACTOR_OTHER)];
  await using right = await openEndpoint({ certificates: other });
  const members = [{ actor: { id: ACTOR_THIRD, addr: right.transport.local } }];
  const mayBe = (target: string, actorId: string): boolean => mayBeAmong(members, target, actorId);
  await using left = await openEndpoint({ certificates: one, mayBe });
  await expect(left.transport.openBi(right.transport.local)).rejects.toMatchObject({
    details: { reason: expect.stringContaining(`names ${ACTOR_OTHER}, who is not the replica`) },
  });
  members.push({ actor: { id: ACTOR_OTHER, addr: right.transport.local } });
  left.transport.reloadCertificates(one);
  expect(await left.transport.sendUni(right.transport.local, [Buffer.from("x")])).toBe(true);
});

test("a replica does not start with a certificate of another actor", async () => {
  const other = await named(ACTOR_OTHER);
  await expect(
    openEndpoint({ certificates: { ...other, actorId: ACTOR_ONE } }),
  ).rejects.toMatchObject({
    code: "TRANSPORT_TLS",
    message: expect.stringContaining(`patina tls server generate --actor ${ACTOR_ONE}`),
  });
});

type Certificates = typeof good;

async function named(actorId: string): Promise<Certificates> {
  return await createTestCertificates({ authority, actorId });
}

async function dialRefusal(ours: Certificates, theirs: Certificates): Promise<unknown> {
  await using left: Endpoint = await openEndpoint({ certificates: ours });
  await using right = await openEndpoint({ certificates: theirs });
  const refusal = await left.transport.openBi(right.transport.local).catch((error) => error);
  expect(left.events.edges.every(({ state }) => state === "down")).toBe(true);
  expect(right.events.streams.length).toBe(0);
  return refusal;
}
