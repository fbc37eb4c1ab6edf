/**
 * What is said on the admin socket (protocol reference, section 8.3), as values and as bytes.
 *
 * Each message is `length(u32, big-endian) | JSON`. The client sends requests; each is answered by
 * any number of `Log` and `Json`, and ends with `Success` or `Error`. The forms are those of serde:
 * a variant without fields is a string, one with fields an object of one key. `Status`, `Edge`
 * and `Schema` are Patina's own.
 */
import { failure, success, type Result } from "#base/machine.ts";
import { errorText } from "#base/errors.ts";
import { actorIdToBytes } from "../../core/wire/actor-id.ts";
import type { ActorId } from "../../types.ts";
import type { SchemaFile } from "../store/schema-files.ts";

/** A request that this replica knows. */
export type AdminRequest =
  | { readonly kind: "ping" }
  | { readonly kind: "status" }
  | { readonly kind: "reload" }
  | { readonly kind: "reloadDicts" }
  | { readonly kind: "schemaApply"; readonly files: readonly SchemaFile[] }
  | { readonly kind: "syncGenerate" }
  | { readonly kind: "reconcileGaps" }
  | { readonly kind: "checkBookieConsistency" }
  | {
      readonly kind: "processBufferedChanges";
      readonly actorId: ActorId;
      readonly version: number;
    }
  | { readonly kind: "rejoin" }
  | { readonly kind: "members" }
  | { readonly kind: "membershipStates" }
  /** 0 to 65,535. */
  | { readonly kind: "setClusterId"; readonly clusterId: number }
  | { readonly kind: "actorVersion"; readonly actorId: ActorId; readonly version: number }
  | { readonly kind: "subsList" }
  | { readonly kind: "subsInfo"; readonly hash: string | null; readonly id: string | null }
  | { readonly kind: "logSet"; readonly filter: string }
  | { readonly kind: "logReset" }
  | { readonly kind: "plumtreeStats" }
  /** At most `limit` hostnames and where they go. */
  | { readonly kind: "edgeRoutes"; readonly limit: number }
  | { readonly kind: "edgeExplain"; readonly host: string }
  | QuarantineQuestion;

/** What is asked of an edge's quarantine, or to be done to it; `list` and `thaw` need no id. */
export interface QuarantineQuestion {
  readonly kind: "quarantine";
  readonly action: "list" | "show" | "release" | "drop" | "thaw";
  readonly id: string;
}

/** An answer as it travels. */
export type AdminAnswer =
  | { readonly Log: { readonly level: string; readonly msg: string; readonly ts: string } }
  | { readonly Json: unknown }
  | { readonly Error: { readonly msg: string } }
  | "Success";

/** Reads a request out of a frame; the error says what was found, for the one who typed it. */
export function parseRequest(frame: Uint8Array): Result<AdminRequest, string> {
  let value: unknown;
  try {
    value = JSON.parse(UTF8.decode(frame));
  } catch (error) {
    return failure(`not JSON: ${errorText(error)}`);
  }
  const request = requestFrom(value);
  return request === null ? failure(`unknown request: ${shortText(value)}`) : success(request);
}

/** A message as one frame, length included. */
export function encodeMessage(message: unknown): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(message, jsonSafe));
  const frame = new Uint8Array(LENGTH_BYTES + json.length);
  new DataView(frame.buffer).setUint32(0, json.length);
  frame.set(json, LENGTH_BYTES);
  return frame;
}

/** Cuts a stream of bytes into frames; holds at most one frame of `frameBytesMax`. */
export class AdminFrames {
  readonly #frameBytesMax: number;
  #chunks: Uint8Array[] = [];
  #bytes = 0;

  constructor(frameBytesMax: number) {
    this.#frameBytesMax = frameBytesMax;
  }

  /** Takes what was read. */
  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** The next whole frame without its length; null = not there yet, or an error for good. */
  next(): Result<Uint8Array | null, string> {
    if (this.#bytes < LENGTH_BYTES) return success(null);
    const joined = this.#joined();
    const length = new DataView(joined.buffer, joined.byteOffset).getUint32(0);
    if (length > this.#frameBytesMax) {
      return failure(`a message of ${length} bytes; at most ${this.#frameBytesMax} are taken`);
    }
    const end = LENGTH_BYTES + length;
    if (joined.length < end) return success(null);
    this.#chunks = [joined.subarray(end)];
    this.#bytes = joined.length - end;
    return success(joined.subarray(LENGTH_BYTES, end));
  }

  /** One chunk of all; joined once per whole frame or so, because frames are small. */
  #joined(): Uint8Array {
    const [first] = this.#chunks;
    if (this.#chunks.length === 1 && first !== undefined) return first;
    const joined = new Uint8Array(this.#bytes);
    let at = 0;
    for (const chunk of this.#chunks) {
      joined.set(chunk, at);
      at += chunk.length;
    }
    this.#chunks = [joined];
    return joined;
  }
}

function requestFrom(value: unknown): AdminRequest | null {
  if (typeof value === "string") return UNIT_REQUESTS.get(value) ?? null;
  const [name, inner] = onlyEntry(value);
  if (name === "Sync") return syncRequest(inner);
  if (name === "Cluster") return clusterRequest(inner);
  if (name === "Actor") return actorRequest(inner);
  if (name === "Subs") return subsRequest(inner);
  if (name === "Log") return logRequest(inner);
  if (name === "Plumtree") return inner === "Stats" ? { kind: "plumtreeStats" } : null;
  if (name === "Edge") return edgeRequest(inner);
  if (name === "Schema") return schemaRequest(inner);
  return null;
}

function syncRequest(value: unknown): AdminRequest | null {
  if (value === "Generate") return { kind: "syncGenerate" };
  if (value === "ReconcileGaps") return { kind: "reconcileGaps" };
  if (value === "CheckBookieConsistency") return { kind: "checkBookieConsistency" };
  const [name, fields] = onlyEntry(value);
  if (name !== "ProcessBufferedChanges") return null;
  const place = versionPlace(fields);
  return place === null ? null : { kind: "processBufferedChanges", ...place };
}

function clusterRequest(value: unknown): AdminRequest | null {
  if (value === "Rejoin") return { kind: "rejoin" };
  if (value === "Members") return { kind: "members" };
  if (value === "MembershipStates") return { kind: "membershipStates" };
  const [name, clusterId] = onlyEntry(value);
  if (name !== "SetId" || !isWholeUpTo(clusterId, 0xffff)) return null;
  return { kind: "setClusterId", clusterId };
}

function actorRequest(value: unknown): AdminRequest | null {
  const [name, fields] = onlyEntry(value);
  const place = name === "Version" ? versionPlace(fields) : null;
  return place === null ? null : { kind: "actorVersion", ...place };
}

function subsRequest(value: unknown): AdminRequest | null {
  if (value === "List") return { kind: "subsList" };
  const [name, fields] = onlyEntry(value);
  if (name !== "Info" || typeof fields !== "object" || fields === null) return null;
  const { hash = null, id = null } = fields as { hash?: unknown; id?: unknown };
  if (!isTextOrNull(hash) || !isTextOrNull(id)) return null;
  return { kind: "subsInfo", hash, id };
}

function logRequest(value: unknown): AdminRequest | null {
  if (value === "Reset") return { kind: "logReset" };
  const [name, fields] = onlyEntry(value);
  const filter = name === "Set" ? (fields as { filter?: unknown } | null)?.filter : undefined;
  return typeof filter === "string" ? { kind: "logSet", filter } : null;
}

function edgeRequest(value: unknown): AdminRequest | null {
  const [name, fields] = onlyEntry(value);
  const { limit, host } = (fields ?? {}) as { limit?: unknown; host?: unknown };
  if (name === "Routes" && isWholeUpTo(limit, ROUTES_MAX)) return { kind: "edgeRoutes", limit };
  if (name === "Quarantine") return quarantineQuestion(fields);
  if (name === "Explain" && typeof host === "string") return { kind: "edgeExplain", host };
  return null;
}

function schemaRequest(value: unknown): AdminRequest | null {
  const [name, fields] = onlyEntry(value);
  const { files } = (fields ?? {}) as { files?: unknown };
  if (name !== "Apply" || !Array.isArray(files) || !files.every(isSchemaFile)) return null;
  return { kind: "schemaApply", files };
}

function isSchemaFile(value: unknown): value is SchemaFile {
  const { name, text } = (value ?? {}) as Partial<SchemaFile>;
  return typeof name === "string" && typeof text === "string";
}

function quarantineQuestion(fields: unknown): QuarantineQuestion | null {
  const { action, id } = (fields ?? {}) as Partial<QuarantineQuestion>;
  const isAction = ["list", "show", "release", "drop", "thaw"].includes(action ?? "");
  if (!isAction || action === undefined || typeof id !== "string") return null;
  return { kind: "quarantine", action, id };
}

function versionPlace(fields: unknown): { actorId: ActorId; version: number } | null {
  if (typeof fields !== "object" || fields === null) return null;
  const { actor_id, version } = fields as { actor_id?: unknown; version?: unknown };
  if (typeof actor_id !== "string" || !isWholeUpTo(version, Number.MAX_SAFE_INTEGER)) return null;
  const actorId = actor_id.toLowerCase();
  return actorIdToBytes(actorId) === null ? null : { actorId, version };
}

/** Name and contents of an object with one key. */
function onlyEntry(value: unknown): readonly [string, unknown] {
  if (typeof value !== "object" || value === null) return NO_ENTRY;
  const entries = Object.entries(value);
  return entries.length === 1 ? (entries[0] ?? NO_ENTRY) : NO_ENTRY;
}

function isWholeUpTo(value: unknown, max: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max;
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === "string";
}

function shortText(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 100)}...` : text;
}

function jsonSafe(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

/** Of a request: what people type, not data. */
export const REQUEST_BYTES_MAX = 64 * 1024;
/** Of an answer, as Corrosion's. */
export const ANSWER_BYTES_MAX = 100 * 1024 * 1024;
/** Hostnames in one answer; more would keep the edge's loop busy for too long. */
export const ROUTES_MAX = 1_000;

const LENGTH_BYTES = 4;
const UTF8 = new TextDecoder("utf-8", { fatal: true });
const NO_ENTRY: readonly [string, unknown] = ["", undefined];
const UNIT_REQUESTS: ReadonlyMap<string, AdminRequest> = new Map([
  ["Ping", { kind: "ping" }],
  ["Status", { kind: "status" }],
  ["Reload", { kind: "reload" }],
  ["ReloadDicts", { kind: "reloadDicts" }],
]);
