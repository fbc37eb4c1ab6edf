/**
 * Notices of changes that stalled an edge, as they stand in its row of `edge_stalls`.
 *
 * ```
 * {"certificate":"-----BEGIN CERTIFICATE-----...",
 *  "entries":[{"change":"<sha-256>","build":"...","actor":"<uuid>","expires":1767225600000,
 *              "signature":"<base64>"}]}
 * ```
 *
 * Signed with the key of the certificate that the replica shows to those who dial it, over the
 * lines `signedText` makes. Taken only from whom the cluster's authority vouches for, in a row that
 * the same actor wrote, of the same build, and while it has not expired: everything else is counted
 * and dropped.
 */
import {
  createHash,
  createPrivateKey,
  sign,
  verify,
  X509Certificate,
  type KeyObject,
} from "node:crypto";
import { type Result, failure, success } from "#base/machine.ts";
import type { ActorId } from "../replica/types.ts";
import type { ChangeName } from "../routing/core/quarantine.ts";

/** What one notice says. */
export interface NoticeEntry {
  /** See `changeHash`. */
  readonly change: string;
  /** Of the edge that stalled, see `readBuildId`. */
  readonly build: string;
  readonly actor: ActorId;
  /** Unix milliseconds; 0 = retracted: the change may be applied. */
  readonly expires: number;
}

/** One with its signature. */
export type SignedEntry = NoticeEntry & { readonly signature: string };

/** Why an entry is not taken. */
export type NoticeRefusal = "forged" | "expired" | "otherBuild";

/** How entries are judged. */
export interface NoticeRules {
  /** PEM of one or more certificates; null = nobody can be believed. */
  readonly authoritiesPem: string | null;
  /** Who wrote the row. */
  readonly writer: ActorId;
  readonly build: string;
  readonly nowMs: number;
  /** Longest that an entry may be valid from now. */
  readonly validMs: number;
}

/** Names a change by one text that only this version of this row has. */
export function changeHash({ actorId, version, table, key }: ChangeName): string {
  const text = [actorId, String(version), table, key].join("\n");
  return createHash("sha256").update(text).digest("hex");
}

/** Signs. Throws what is wrong with the key. */
export function signEntry(entry: NoticeEntry, keyPem: string): SignedEntry {
  const key = createPrivateKey(keyPem);
  const signature = sign(digestOf(key), signedText(entry), key).toString("base64");
  return { ...entry, signature };
}

/** The text for the row: newest entries first, as many as are read. */
export function writeNotices(certificatePem: string, entries: readonly SignedEntry[]): string {
  return JSON.stringify({ certificate: certificatePem, entries: entries.slice(0, ENTRIES_MAX) });
}

/** Judges a row's notices, entry by entry. Never throws. */
export function readNotices(
  text: string,
  rules: NoticeRules,
): readonly Result<NoticeEntry, NoticeRefusal>[] {
  if (text === "") return [];
  const parsed = text.length > TEXT_MAX ? null : parse(text);
  if (parsed === null) return [failure("forged")];
  const key = trustedKey(parsed.certificate, rules);
  return parsed.entries.slice(0, ENTRIES_MAX).map((entry) => judge(entry, key, rules));
}

function judge(
  value: unknown,
  key: KeyObject | null,
  { writer, build, nowMs, validMs }: NoticeRules,
): Result<NoticeEntry, NoticeRefusal> {
  const entry = readEntry(value);
  if (entry === null || key === null || entry.actor !== writer) return failure("forged");
  const signature = Buffer.from(entry.signature, "base64");
  if (!isSigned(entry, key, signature)) return failure("forged");
  if (entry.expires === 0 && entry.build === build) return success(entry);
  if (entry.expires <= nowMs) return failure("expired");
  if (entry.build !== build) return failure("otherBuild");
  return success({ ...entry, expires: Math.min(entry.expires, nowMs + validMs) });
}

function isSigned(entry: NoticeEntry, key: KeyObject, signature: Buffer): boolean {
  try {
    return verify(digestOf(key), signedText(entry), key, signature);
  } catch {
    // A key that cannot verify anything.
    return false;
  }
}

/** The key of a certificate that an authority has issued and that is valid now; else null. */
function trustedKey(pem: string, { authoritiesPem, writer, nowMs }: NoticeRules): KeyObject | null {
  try {
    const leaf = new X509Certificate(pem);
    const isIssued = (authoritiesPem?.match(CERTIFICATE) ?? []).some((one) => {
      const authority = new X509Certificate(one);
      return leaf.checkIssued(authority) && leaf.verify(authority.publicKey);
    });
    const isValid = Date.parse(leaf.validFrom) <= nowMs && nowMs < Date.parse(leaf.validTo);
    // One that names a replica speaks for no other.
    const named = /urn:uuid:([0-9a-f-]{36})/i.exec(leaf.subjectAltName ?? "")?.[1];
    const isOwn = named === undefined || named.toLowerCase() === writer;
    return isIssued && isValid && isOwn && !leaf.ca ? leaf.publicKey : null;
  } catch {
    // No certificate; what it is instead does not matter.
    return null;
  }
}

function parse(text: string): { certificate: string; entries: readonly unknown[] } | null {
  try {
    const value = JSON.parse(text) as { certificate?: unknown; entries?: unknown } | null;
    if (typeof value?.certificate !== "string" || !Array.isArray(value.entries)) return null;
    return { certificate: value.certificate, entries: value.entries };
  } catch {
    // No JSON.
    return null;
  }
}

function readEntry(value: unknown): SignedEntry | null {
  if (typeof value !== "object" || value === null) return null;
  const { change, build, actor, expires, signature } = value as Partial<SignedEntry>;
  const texts = [change, build, actor, signature];
  if (!texts.every((one) => typeof one === "string") || !Number.isSafeInteger(expires)) return null;
  return { change, build, actor, expires, signature } as SignedEntry;
}

function signedText({ change, build, actor, expires }: NoticeEntry): Buffer {
  const lines = ["patina stall notice 1", change, build, actor, String(expires)];
  return Buffer.from(lines.map((line) => JSON.stringify(line)).join("\n"));
}

/** Ed25519 and Ed448 have a digest of their own. */
function digestOf({ asymmetricKeyType }: KeyObject): string | null {
  return asymmetricKeyType?.startsWith("ed") === true ? null : "sha256";
}

/** Changes that stall one edge within the time of a hold are few: then its origin is held. */
export const ENTRIES_MAX = 8;
/** Eight entries are 3 KB, and a certificate with its chain hardly more. */
const TEXT_MAX = 16_384;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
