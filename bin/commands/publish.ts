/** `patina publish`: whole machines from a JSON file to a replica's API. */
import { readFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { errorText, PatinaError } from "#base/errors.ts";
import { callApi, requireSuccess, type ApiOptions } from "../api-client.ts";

/**
 * Publishes one machine or an array of them, or an object with arrays of `apps`, `hostnames` and
 * `machines`; each has an `id` beside what the API takes. Stops at the first that is refused, and says how
 * many were published before.
 */
export async function publish(
  file: string,
  options: ApiOptions,
  { perSecond = Infinity }: { readonly perSecond?: number } = {},
): Promise<void> {
  const documents = readDocuments(file);
  for (const [index, { kind, id, document }] of documents.entries()) {
    if (index > 0 && perSecond < Infinity) await wait(1_000 / perSecond);
    const path = `/v1/${kind}/${encodeURIComponent(id)}`;
    try {
      const text = await requireSuccess(
        await callApi(options, { method: "PUT", path, body: document }),
      );
      const { version, warnings } = JSON.parse(text) as {
        version: number | null;
        warnings: string[];
      };
      process.stdout.write(`${id}: ${version === null ? "no change" : `version ${version}`}\n`);
      for (const warning of warnings) process.stderr.write(`${id}: ${warning}\n`);
    } catch (error) {
      if (!(error instanceof PatinaError)) throw error;
      throw new PatinaError(
        error.code,
        `${id} (${index + 1} of ${documents.length}): ${error.message}`,
        { cause: error },
      );
    }
  }
}

interface Published {
  readonly kind: (typeof KINDS)[number];
  readonly id: string;
  readonly document: Readonly<Record<string, unknown>>;
}

function readDocuments(file: string): Published[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(file === "-" ? 0 : file, "utf8"));
  } catch (error) {
    throw new PatinaError("USAGE", `${file}: ${errorText(error)}`, { cause: error });
  }
  return KINDS.flatMap((kind) =>
    listOf(parsed, kind).map((one, index) => {
      const { id, ...document } = (one ?? {}) as Record<string, unknown>;
      if (typeof id === "string" && id !== "") return { kind, id, document };
      const which = kind === "machines" ? "" : ` of ${kind}`;
      throw new PatinaError("USAGE", `${file}: document ${index + 1}${which} has no id`);
    }),
  );
}

/** What a file has of one kind; a list, or one object with an id, is of machines. */
function listOf(parsed: unknown, kind: Published["kind"]): readonly unknown[] {
  const isObject = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
  const lists = isObject ? (parsed as Readonly<Record<string, unknown>>) : {};
  const isListed = !("id" in lists) && KINDS.some((name) => Array.isArray(lists[name]));
  if (!isListed) return kind === "machines" ? [parsed].flat() : [];
  const list = lists[kind];
  return Array.isArray(list) ? (list as unknown[]) : [];
}

/** In this order: machines name apps, hostnames too. */
const KINDS = ["apps", "hostnames", "machines"] as const;
