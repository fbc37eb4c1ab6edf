/** `patina publish`: whole machines from a JSON file to a replica's API. */
import { readFileSync } from "node:fs";
import { errorText, PatinaError } from "#base/errors.ts";
import { callApi, requireSuccess, type ApiOptions } from "../api-client.ts";

/**
 * Publishes one document or an array of them; each has an `id` beside what the API takes. Stops at
 * the first that is refused, and says how many were published before.
 */
export async function publish(file: string, options: ApiOptions): Promise<void> {
  const documents = readDocuments(file);
  for (const [index, { id, ...document }] of documents.entries()) {
    const path = `/v1/machines/${encodeURIComponent(id)}`;
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

function readDocuments(file: string): ({ id: string } & Record<string, unknown>)[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(file === "-" ? 0 : file, "utf8"));
  } catch (error) {
    throw new PatinaError("USAGE", `${file}: ${errorText(error)}`, { cause: error });
  }
  const documents = (Array.isArray(parsed) ? parsed : [parsed]) as unknown[];
  return documents.map((document, index) => {
    const id = (document as { id?: unknown } | null)?.id;
    if (typeof id === "string" && id !== "") return document as { id: string };
    throw new PatinaError("USAGE", `${file}: document ${index + 1} has no id`);
  });
}
