/** Whose word on a change counts: what is forged, borrowed, altered, old or of another build does not. */
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import {
  createCertificateAuthority,
  issueServerCertificate,
  type CertificatePems,
} from "../replica/driver/certificates/certificates.ts";
import {
  changeHash,
  readNotices,
  signEntry,
  writeNotices,
  type NoticeRules,
} from "./stall-notice.ts";

const NOW_MS = Date.parse("2026-05-01T00:00:00Z");
const ACTOR = "6d1f3c52-8b30-4f1c-9d55-0c8f8a3d7a11";
const OTHER = "0b8e1d6a-55f2-4b3a-8c1b-6a2f6f0e9c22";
const ENTRY = { change: "c".repeat(64), build: "b1", actor: ACTOR, expires: NOW_MS + 1_000 };
let authority: CertificatePems;
let leaf: CertificatePems;
let rules: NoticeRules;

beforeAll(async () => {
  authority = await createCertificateAuthority({ nowMs: NOW_MS });
  leaf = await issueServerCertificate(authority, { nowMs: NOW_MS, addresses: ["192.0.2.1"] });
  rules = {
    authoritiesPem: authority.certificatePem,
    writer: ACTOR,
    build: "b1",
    nowMs: NOW_MS,
    validMs: 3_600_000,
  };
});

test("a signed notice is taken with what it says, for no longer than is allowed", () => {
  const far = { ...ENTRY, expires: NOW_MS + 10 * 3_600_000 };
  expect(read(signed())).toEqual([{ ok: true, value: expect.objectContaining(ENTRY) }]);
  expect(read(signed(far))).toMatchObject([{ ok: true, value: { expires: NOW_MS + 3_600_000 } }]);
  expect(read("")).toEqual([]);
});

test("a notice of another build and one that has expired are told from forged ones", () => {
  expect(read(signed({ ...ENTRY, build: "b2" }))).toEqual([refused("otherBuild")]);
  expect(read(signed({ ...ENTRY, expires: NOW_MS }))).toEqual([refused("expired")]);
});

test("a retraction counts as long as there is one, of the same build and when signed alone", () => {
  const retracted = { ...ENTRY, expires: 0 };
  expect(read(signed(retracted))).toMatchObject([{ ok: true, value: { expires: 0 } }]);
  expect(read(signed({ ...retracted, build: "b2" }))).toEqual([refused("expired")]);
  const forged = signed().replace(String(ENTRY.expires), "0");
  expect(read(forged)).toEqual([refused("forged")]);
});

test("nothing that the writer has not signed counts", async () => {
  const text = signed();
  const altered = [
    text.replace("cccc", "dddd"),
    text.replace(String(ENTRY.expires), String(ENTRY.expires + 1)),
    text.replace('"b1"', '"b2"'),
    text.replaceAll(ACTOR, OTHER),
  ];
  for (const one of altered) {
    expect(one).not.toBe(text);
    expect(read(one)).toEqual([refused("forged")]);
  }
  // Another replica's notice, copied into a row of one's own.
  expect(read(text, { writer: OTHER })).toEqual([refused("forged")]);
  const stranger = await createCertificateAuthority({ nowMs: NOW_MS });
  const strangers = await issueServerCertificate(stranger, {
    nowMs: NOW_MS,
    names: ["a"],
    addresses: [],
  });
  expect(read(signed(ENTRY, strangers))).toEqual([refused("forged")]);
  const mixed = { ...leaf, keyPem: strangers.keyPem };
  expect(read(signed(ENTRY, mixed))).toEqual([refused("forged")]);
  // The authority itself is no replica.
  expect(read(signed(ENTRY, authority))).toEqual([refused("forged")]);
  expect(read(text, { authoritiesPem: null })).toEqual([refused("forged")]);
});

test("a certificate speaks in its time only, and for no other replica than the one it names", async () => {
  const later = NOW_MS + 400 * 86_400_000;
  const fresh = { ...ENTRY, expires: later + 1_000 };
  expect(read(signed(fresh), { nowMs: later })).toEqual([refused("forged")]);
  const options = { nowMs: NOW_MS, addresses: ["192.0.2.2"] };
  const own = await issueServerCertificate(authority, { ...options, actorId: ACTOR });
  const others = await issueServerCertificate(authority, { ...options, actorId: OTHER });
  expect(read(signed(ENTRY, own))).toMatchObject([{ ok: true }]);
  expect(read(signed(ENTRY, others))).toEqual([refused("forged")]);
});

test("whatever stands in the row is judged without an exception, and costs a bounded amount", () => {
  const parts = fc.record({
    certificate: fc.oneof(fc.string(), fc.constant(leaf.certificatePem), fc.integer()),
    entries: fc.oneof(fc.array(fc.anything()), fc.anything()),
  });
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json(), parts.map(toText)), (text) => {
      for (const notice of read(text)) expect(notice).toEqual(refused("forged"));
    }),
  );
  const many = JSON.parse(signed()) as { entries: unknown[] };
  many.entries = Array.from({ length: 30 }, () => many.entries[0]);
  expect(read(JSON.stringify(many)).length).toBe(8);
  expect(read(`{"certificate":"${"x".repeat(20_000)}","entries":[]}`)).toEqual([refused("forged")]);
});

test("keys with a digest of their own sign too", () => {
  const { privateKey } = generateKeyPairSync("ed25519");
  const keyPem = privateKey.export({ type: "pkcs8", format: "pem" });
  expect(Buffer.from(signEntry(ENTRY, keyPem).signature, "base64")).toHaveLength(64);
  expect(new X509Certificate(leaf.certificatePem).ca).toBe(false);
});

test("a change is named by actor, version, table and key, and by nothing else", () => {
  const change = { actorId: ACTOR, version: 7, table: "machines", key: "m1", app: "shop" };
  expect(changeHash({ ...change, app: "" })).toBe(changeHash(change));
  const others = [{ version: 8 }, { table: "services" }, { key: "m2" }, { actorId: OTHER }];
  const hashes = others.map((other) => changeHash({ ...change, ...other }));
  expect(new Set([changeHash(change), ...hashes]).size).toBe(5);
});

function signed(entry = ENTRY, pems = leaf): string {
  return writeNotices(pems.certificatePem, [signEntry(entry, pems.keyPem)]);
}

function read(text: string, changed: Partial<NoticeRules> = {}): unknown[] {
  return [...readNotices(text, { ...rules, ...changed })];
}

function refused(error: string): unknown {
  return { ok: false, error };
}

function toText(value: unknown): string {
  return JSON.stringify(value, (_key, one: unknown) =>
    typeof one === "bigint" ? String(one) : one,
  );
}
