/** The schema files of a process: Patina's own tables first, then the operator's. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { errorText, PatinaError } from "#base/errors.ts";

/** One file: what messages call it, and its SQL. */
export interface SchemaSource {
  readonly name: string;
  readonly text: string;
}

/** Reads files and folders of `.sql`. Throws `CONFIG_UNREADABLE` for one that cannot be read. */
export function readSchemaFiles(paths: readonly string[]): SchemaSource[] {
  const own = fileURLToPath(new URL("../replica/schema/", import.meta.url));
  return readSchemaPaths([own, ...paths], "db.schema_paths", own);
}

/**
 * Reads files and folders of `.sql` alone. Throws `CONFIG_UNREADABLE`, whose text begins with `what`.
 * Of the files in the folder `own`, the name is told without it.
 */
export function readSchemaPaths(
  paths: readonly string[],
  what: string,
  own: string | null = null,
): SchemaSource[] {
  return paths.flatMap((path) => {
    try {
      const files = path.endsWith(".sql") ? [path] : sqlFilesIn(path);
      return files.map((file) => ({
        // What the tables are said to come from must not change with where Patina is installed.
        name: path === own ? basename(file) : file,
        text: readFileSync(file, "utf8"),
      }));
    } catch (error) {
      throw new PatinaError("CONFIG_UNREADABLE", `${what}: ${errorText(error)}`, {
        cause: error,
      });
    }
  });
}

function sqlFilesIn(folder: string): string[] {
  const names = readdirSync(folder).filter((name) => name.endsWith(".sql"));
  return names.toSorted().map((name) => join(folder, name));
}
