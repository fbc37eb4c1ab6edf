import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { loadConfig, type LoadedConfig } from "./config-file.ts";
import { insteadOf } from "./corrosion-config.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-corrosion-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("names and forms of Corrosion's are translated without a warning", () => {
  const { config, warnings } = load(`
[api]
bind_addr = ["127.0.0.1:8080", "[::1]:8080"]
[admin]
uds_path = "/run/corrosion/admin.sock"
[gossip]
addr = "127.0.0.1:8787"
plaintext = true
`);
  expect(config).toMatchObject({
    api: { addr: ["127.0.0.1:8080", "[::1]:8080"] },
    admin: { path: "/run/corrosion/admin.sock" },
    gossip: { plaintext: true },
  });
  expect(config.gossip.tls).toBeUndefined();
  expect(warnings).toEqual([]);
});

test("the broadcast method is taken in Corrosion's forms", () => {
  const head = '[gossip]\naddr = "127.0.0.1:8787"\nplaintext = true\n';
  const method = (text: string): unknown => load(head + text).config.gossip.broadcast;
  expect(method("")).toMatchObject({ method: "gossip", prune_threshold: 1 });
  expect(method('broadcast = "gossip"')).toMatchObject({ method: "gossip" });
  expect(method('broadcast = "plumtree"')).toMatchObject({ method: "plumtree" });
  expect(method("[gossip.broadcast.plumtree]\nprune_threshold = 5")).toMatchObject({
    method: "plumtree",
    prune_threshold: 5,
  });
  expect(() => method('broadcast = "flood"')).toThrow(/gossip\.broadcast\.method/);
});

test("what is translated only in part says so", () => {
  const { config, warnings } = load(`
[gossip]
addr = "127.0.0.1:8787"
bootstrap = ["ams.example:8787@192.0.2.53:53", "192.0.2.1:8787"]
plaintext = true
`);
  expect(config.gossip.bootstrap).toEqual(["ams.example:8787", "192.0.2.1:8787"]);
  expect(warnings).toEqual([expect.stringMatching(/: gossip\.bootstrap: .*resolver/)]);
});

test("each key left out has one warning that says what happens instead", () => {
  const { warnings } = load(`
[db]
cache_size_kib = -1048576
[gossip]
addr = "127.0.0.1:8787"
plaintext = true
disable_gso = true
broadcast = { plumtree = { prune_threshold = 3, eager_ratios = [50, 30, 20] } }
[perf]
wal_threshold_mb = 5120
min_sync_backoff = 2
[reaper]
check_interval = 3600
[telemetry]
open-telemetry = "from_env"
`);
  expect(warnings.map((line) => line.slice(line.indexOf(": ") + 2)).toSorted()).toEqual([
    "db.cache_size_kib: a key of Corrosion's, left out: the store's page cache is 64 MiB",
    expect.stringMatching(/^gossip\.broadcast\.eager_ratios: /),
    expect.stringMatching(/^gossip\.disable_gso: /),
    expect.stringMatching(/^perf\.wal_threshold_mb: /),
    expect.stringMatching(/^reaper: /),
    expect.stringMatching(/^telemetry\.open-telemetry: /),
  ]);
});

test("a key that neither knows stays an error, beside those left out", () => {
  const text = '[gossip]\naddr = "127.0.0.1:1"\nplaintext = true\nplain = 1\ndisable_gso = true\n';
  expect(() => load(text)).toThrow(/gossip\.plain: unknown key/);
  expect(() => load(text)).not.toThrow(/disable_gso/);
  expect(insteadOf("perf")).toBeNull();
});

test("a host in a plaintext cluster publishes a row of its own when it has a name, or is told to", () => {
  const plaintext = '[db]\npath = "x.db"\n[gossip]\naddr = "127.0.0.1:1"\nplaintext = true\n';
  const publishes = (text: string): boolean | undefined =>
    load(text, { mode: "agent" }).config.replica.publish_node;
  expect(publishes(plaintext)).toBe(false);
  expect(publishes(`${plaintext}[replica]\npublish_node = true\n`)).toBe(true);
  expect(publishes(`${plaintext}[replica]\nnode = "a"\n`)).toBeUndefined();
});

test("for an agent it is left out with a warning, unless it was given by a flag", () => {
  const text = `
[db]
path = "/var/lib/corrosion/state.db"
extra = { inner = 1 }
[gossip]
addr = "127.0.0.1:1"
plaintext = true
plain = 1
disable_gso = true
[newer]
key = 1
`;
  const { config, warnings } = load(text, { mode: "agent" });
  expect(config.db.path).toBe("/var/lib/corrosion/state.db");
  expect(warnings.map((line) => line.slice(line.indexOf(": ") + 2)).toSorted()).toEqual([
    "db.extra: unknown key, left out",
    expect.stringMatching(/^gossip\.disable_gso: a key of Corrosion's, left out: /),
    "gossip.plain: unknown key, left out",
    "newer: unknown key, left out",
  ]);
  const overrides = [{ key: "gosip.addr", value: "127.0.0.1:2", source: "--set" }];
  expect(() => load(text, { mode: "agent", overrides })).toThrow(/gosip: unknown key/);
  expect(() => load("[gossip]\naddr = 7\n", { mode: "agent" })).toThrow(/gossip\.addr/);
});

test("an API that is open to all is served by an agent, with a warning per address", () => {
  const text = `
[api]
addr = ["127.0.0.1:8080", "0.0.0.0:8081", "[2001:db8::1]:8080"]
[gossip]
addr = "0.0.0.0:8787"
plaintext = true
`;
  const warnings = (options: Parameters<typeof load>[1]): unknown =>
    load(text, { mode: "agent", ...options }).warnings;
  expect(warnings({})).toEqual([
    expect.stringMatching(/corrosion\.toml: api\.addr: OPEN TO ALL: .*0\.0\.0\.0:8081/),
    expect.stringMatching(/OPEN TO ALL: .*\[2001:db8::1\]:8080/),
  ]);
  expect(warnings({ environment: { API__ADDR: "0.0.0.0:80" } })).toEqual([
    expect.stringMatching(/^API__ADDR: api\.addr: OPEN TO ALL: .*0\.0\.0\.0:80 /),
  ]);
  expect(warnings({ environment: { "API__AUTHZ__BEARER-TOKEN": "secret" } })).toEqual([]);
  expect(() => load(text)).toThrow(/api\.addr: found .*bearer-token/);
});

test("Corrosion's names in the environment count, less than Patina's, and no others do", () => {
  const text = '[gossip]\naddr = "127.0.0.1:1"\nplaintext = true\n[api]\nbind_addr = "[::1]:1"\n';
  const { config, warnings } = load(text, {
    environment: {
      GOSSIP__ADDR: "127.0.0.1:2",
      GOSSIP__BOOTSTRAP: '["192.0.2.1:8787"]',
      PATINA__GOSSIP__ADDR: "127.0.0.1:3",
      API__BIND_ADDR: "127.0.0.1:4",
      ADMIN__UDS_PATH: "/run/a.sock",
      GOSSIP__ADDRESS: "x",
      GOSSIP: "x",
      DB__HOST: "x",
      LOG__LEVEL: "loud",
      PROXY__HTTP: "http://proxy.example",
      WATCHDOG__STEADY_MS: "soon",
    },
  });
  expect(config).toMatchObject({
    gossip: { addr: "127.0.0.1:3", bootstrap: ["192.0.2.1:8787"] },
    api: { addr: "127.0.0.1:4" },
    admin: { path: "/run/a.sock" },
    log: { level: "info" },
    proxy: { http: "0.0.0.0:8080" },
  });
  expect(warnings).toEqual([]);
  expect(() => load(text, { environment: { GOSSIP__ADDR: "ams" } })).toThrow(
    /^GOSSIP__ADDR: gossip\.addr: found "ams"/,
  );
});

test("a node without a name goes by the host's, in the letters that a name may have", () => {
  const { config } = load('[gossip]\naddr = "127.0.0.1:1"\nplaintext = true\n');
  expect(config.replica.node).toMatch(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/);
  expect(config.replica.region).toBe("");
});

function load(
  text: string,
  options: Omit<Parameters<typeof loadConfig>[0], "file"> = {},
): LoadedConfig {
  const file = join(folder, "corrosion.toml");
  writeFileSync(file, text);
  return loadConfig({ file, ...options });
}
