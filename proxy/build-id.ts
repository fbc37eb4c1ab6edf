/** Which build this is, as far as applying changes goes. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * A hash of the code that applies changes to the routing table, and of the Node that runs it: two
 * processes with the same id do the same with a change. Cost: reads some 100 KB.
 */
export function readBuildId(): string {
  const folder = fileURLToPath(new URL("../routing/", import.meta.url));
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const hash = createHash("sha256").update(process.version);
  for (const name of files.filter(isSource).toSorted()) {
    hash.update(`\n${name}\n`).update(readFileSync(join(folder, name)));
  }
  return hash.digest("hex").slice(0, 16);
}

function isSource(name: string): boolean {
  return name.endsWith(".ts") && !name.endsWith(".test.ts");
}
