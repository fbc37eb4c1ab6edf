/**
 * `PUT`, `GET`, `DELETE` and lists on `/v1/{nodes,apps,hostnames,machines}`.
 *
 * | request | answer |
 * |---|---|
 * | `PUT /v1/machines/{id}` | 200 `{"version": n, "warnings": [...]}`; null = no change |
 * | `GET /v1/machines/{id}` | 200 the document with `id`, `node`, `updated_at`; 404 |
 * | `DELETE /v1/machines/{id}` | 200 `{"version": n}`; 404 |
 * | `GET /v1/machines?after=&limit=` | 200 `{"machines": [...], "next": id or null}` |
 *
 * A document that does not fit: 422 with every error. A row owned by another node: 409.
 */
import type { ObjectKind } from "../store/objects.ts";
import {
  HttpProblem,
  readJsonBody,
  requireMethod,
  sendJson,
  type ApiRequest,
} from "./api-request.ts";

/** Loaded by the first request for an object: its schemas are a fifth of the thread's heap. */
const loadDocuments = () => import("./documents.ts");

/** Kinds in the API's paths. */
export const OBJECT_KINDS: readonly ObjectKind[] = ["nodes", "apps", "hostnames", "machines"];

/** Serves one object or a list. */
export async function handleObject(request: ApiRequest, kind: ObjectKind): Promise<void> {
  const parts = request.url.pathname.split("/").slice(3);
  if (parts.length === 0 || (parts.length === 1 && parts[0] === "")) return list(request, kind);
  if (parts.length > 1) throw new HttpProblem(404, "");
  const id = idOf(kind, parts[0] ?? "");
  switch (requireMethod(request, "GET", "PUT", "DELETE")) {
    case "PUT":
      return put(request, kind, id);
    case "DELETE":
      return remove(request, kind, id);
    default:
      return get(request, kind, id);
  }
}

async function put(request: ApiRequest, kind: ObjectKind, id: string): Promise<void> {
  const body = await readJsonBody(request);
  const { readDocument } = await loadDocuments();
  const read = readDocument(kind, id, body);
  if (!read.ok) {
    return sendJson(request.response, 422, {
      error: "the document does not fit",
      places: read.error,
    });
  }
  const { version } = await request.backend.put(kind, read.value.document);
  sendJson(request.response, 200, { version, warnings: read.value.warnings });
}

async function get(request: ApiRequest, kind: ObjectKind, id: string): Promise<void> {
  const stored = await request.backend.get(kind, id);
  if (stored === null) return notFound(request, kind, id);
  const { printObject } = await loadDocuments();
  sendJson(request.response, 200, printObject(kind, stored));
}

async function remove(request: ApiRequest, kind: ObjectKind, id: string): Promise<void> {
  const { version, existed } = await request.backend.remove(kind, id);
  if (!existed) return notFound(request, kind, id);
  sendJson(request.response, 200, { version });
}

async function list(request: ApiRequest, kind: ObjectKind): Promise<void> {
  requireMethod(request, "GET");
  const { searchParams } = request.url;
  const limitText = searchParams.get("limit") ?? String(LIST_DEFAULT);
  if (!/^\d{1,6}$/.test(limitText) || Number(limitText) < 1 || Number(limitText) > LIST_MAX) {
    throw new HttpProblem(400, `limit: found ${limitText}; allowed: 1 to ${LIST_MAX}`);
  }
  const limit = Number(limitText);
  const found = await request.backend.list(kind, { after: searchParams.get("after") ?? "", limit });
  const { printObject } = await loadDocuments();
  sendJson(request.response, 200, {
    [kind]: found.map((stored) => printObject(kind, stored)),
    next: found.length === limit ? (found.at(-1)?.id ?? null) : null,
  });
}

function notFound(request: ApiRequest, kind: ObjectKind, id: string): void {
  sendJson(request.response, 404, { error: `there is no ${id} in ${kind}` });
}

/** Host names are stored in lower case, whatever the case they are asked for in. */
function idOf(kind: ObjectKind, part: string): string {
  try {
    const id = decodeURIComponent(part);
    return kind === "hostnames" ? id.toLowerCase() : id;
  } catch (error) {
    if (error instanceof URIError)
      throw new HttpProblem(400, "the id is not valid percent-encoding");
    throw error;
  }
}

const LIST_DEFAULT = 1_000;
const LIST_MAX = 10_000;
