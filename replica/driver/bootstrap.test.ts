import { expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { resolveBootstrap, type ResolvedBootstrap } from "./bootstrap.ts";

test("addresses are taken in canonical form, each once, without our own", async () => {
  const entries = ["127.0.0.1:4001", "127.0.0.2:4001", "127.0.0.1:4001", "127.0.0.3:4001"];
  expect(await resolve(entries, "127.0.0.2:4001")).toEqual({
    addresses: ["127.0.0.1:4001", "127.0.0.3:4001"],
    unresolved: 0,
    warnings: [],
  });
  expect(await resolve(["[2001:DB8:0:0::1]:1", "[2001:db8::1]:1"], "[::1]:1")).toEqual({
    addresses: ["[2001:db8::1]:1"],
    unresolved: 0,
    warnings: [],
  });
});

test("an address of the other family is left out, counted and told", async () => {
  const entries = ["127.0.0.1:1", "[::1]:2"];
  expect(await resolve(entries, "127.0.0.9:9")).toEqual({
    addresses: ["127.0.0.1:1"],
    unresolved: 1,
    warnings: [expect.stringContaining("::1: not an IPv4 address")],
  });
  expect((await resolve(entries, "[::9]:9")).addresses).toEqual(["[::1]:2"]);
});

test("a name is looked up", async () => {
  expect((await resolve(["localhost:5"], "127.0.0.9:9")).addresses).toEqual(["127.0.0.1:5"]);
});

test("a name that does not resolve is left out and told, and the others are kept", async () => {
  const entries = ["nowhere.invalid:1", "127.0.0.1:2"];
  expect(await resolve(entries, "127.0.0.9:9")).toEqual({
    addresses: ["127.0.0.1:2"],
    unresolved: 1,
    warnings: [expect.stringContaining("nowhere.invalid")],
  });
});

async function resolve(
  entries: readonly string[],
  self: string,
): Promise<ResolvedBootstrap & { warnings: string[] }> {
  const warnings: string[] = [];
  const log = createLogger({ level: "warn", nowMs: () => 0, write: (line) => warnings.push(line) });
  return { ...(await resolveBootstrap(entries, self, log)), warnings };
}
