import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { loadConfig } from "../bin/config-file.ts";
import { readEffectiveConfig, writeEffectiveConfig, type Mode } from "./effective-config.ts";

const ROOT = join(import.meta.dirname, "..");

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "patina-effective-"));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("the config of the last start is not written again: a full disk has no room for it", () => {
  const path = freeze("agent");
  const { ino } = statSync(path);
  expect(freeze("agent")).toBe(path);
  expect(statSync(path).ino).toBe(ino);
  freeze("agent", { node: "another" });
  expect(statSync(path).ino).not.toBe(ino);
  expect(readEffectiveConfig(path).config.replica.node).toBe("another");
  expect(readdirSync(join(folder, "state"))).toEqual(["effective-config.json"]);
});

test("an agent's process is started for little memory, an edge's is not", () => {
  const started = (mode: Mode): unknown[] => {
    const { env, nodeFlags } = readEffectiveConfig(freeze(mode)).supervisor;
    return [env?.["MALLOC_ARENA_MAX"], nodeFlags];
  };
  const arenas = process.env["MALLOC_ARENA_MAX"] ?? "2";
  expect(started("agent")).toEqual([arenas, ["--max-semi-space-size=1"]]);
  expect(started("edge")).toEqual([undefined, undefined]);
});

function freeze(mode: Mode, { node = "host" } = {}): string {
  const { config, file, hash } = loadConfig({ file: join(ROOT, "docs/examples/worker.toml") });
  return writeEffectiveConfig({
    mode,
    config: {
      ...config,
      db: { ...config.db, path: join(folder, "patina.db") },
      replica: { ...config.replica, node },
    },
    file,
    hash,
    stateFolder: join(folder, "state"),
    extensionPath: "/nowhere",
    deadlinePath: "/nowhere",
  });
}
