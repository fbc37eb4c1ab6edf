import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { PatinaError } from "#base/errors.ts";
import { loadConfig, stateFolderOf } from "./config-file.ts";
import { overridesFromFlags } from "./overrides.ts";

let folder: string;
let file: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "patina-config-"));
  file = join(folder, "patina.toml");
  writeFileSync(file, VALID);
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe("a valid file", () => {
  test("is filled up with defaults, and relative paths count from its folder", () => {
    const { config } = loadConfig({ file });
    expect(config.proxy).toMatchObject({ http: "0.0.0.0:8080", threads: 1, attempts_max: 4 });
    expect(config.watchdog).toMatchObject({ steady_ms: 1_000, apply_ms: 2_000, boot_ms: 15_000 });
    expect(config.db.path).toBe(join(folder, "patina.db"));
    expect(config.gossip.tls?.client?.key_file).toBe(join(folder, "client.key"));
    expect(stateFolderOf(config)).toBe(join(folder, "state"));
  });

  test("has the same hash as long as what it comes to is the same", () => {
    const { hash } = loadConfig({ file });
    writeFileSync(file, `${VALID}\n[log]\nlevel = "info" # the default\n`);
    expect(loadConfig({ file }).hash).toBe(hash);
    writeFileSync(file, `${VALID}\n[log]\nlevel = "warn"\n`);
    expect(loadConfig({ file }).hash).not.toBe(hash);
  });
});

describe("overrides", () => {
  const environment = { PATINA__LOG__LEVEL: "warn", PATINA__PROXY__THREADS: "2", OTHER: "x" };

  test("of the environment beat the file, and flags beat both", () => {
    writeFileSync(file, `${VALID}\n[log]\nlevel = "debug"\n`);
    expect(loadConfig({ file, environment }).config.log.level).toBe("warn");
    const overrides = overridesFromFlags(["log.level=error"]);
    const { config } = loadConfig({ file, environment, overrides });
    expect(config).toMatchObject({ log: { level: "error" }, proxy: { threads: 2 } });
  });

  test("that do not fit are told under the name they came by", () => {
    const lines = errorsOf({
      environment: { PATINA__PROXY__THREADS: "none" },
      overrides: overridesFromFlags(["log.level=loud"]),
    });
    expect(lines).toEqual([
      'PATINA__PROXY__THREADS: proxy.threads: found "none"; allowed: a value of type number',
      expect.stringMatching(/^--set log\.level: log\.level: found "loud"; allowed: .*"info"/),
    ]);
  });

  test("may set what the file says nothing of, in a section that it lacks", () => {
    const overrides = overridesFromFlags([
      "fault.enabled=true",
      "fault.stall_path=/x",
      "watchdog.allow_fault_injection=true",
    ]);
    expect(loadConfig({ file, overrides }).config.fault).toMatchObject({ stall_path: "/x" });
  });
});

describe("mistakes", () => {
  test("are told all at once, each with file, key, what was found and what is allowed", () => {
    writeFileSync(
      file,
      VALID.replace('region = "ams"', 'region = "a b"') +
        '\n[proxy]\nhttp = "8080"\nthreads = 0\n[log]\nlevel = "loud"\n',
    );
    expect(errorsOf()).toEqual([
      expect.stringMatching(/^.*patina\.toml: replica\.region: found "a b"; allowed: .*1 to 63/),
      `${file}: proxy.http: found "8080"; allowed: host:port, with an IPv6 host in brackets`,
      `${file}: proxy.threads: found 0; allowed: at least 1`,
      expect.stringMatching(/patina\.toml: log\.level: found "loud"; allowed: .*"debug"/),
    ]);
  });

  test("of spelling are unknown keys, in a section and at the top", () => {
    writeFileSync(file, `${VALID}\n[proxy]\nhtpp = "0.0.0.0:80"\n[gosip]\naddr = "x"\n`);
    expect(errorsOf().toSorted()).toEqual([
      `${file}: gosip: unknown key; remove it or mend its name`,
      `${file}: proxy.htpp: unknown key; remove it or mend its name`,
    ]);
  });

  test("of what is missing say that nothing was found", () => {
    writeFileSync(file, VALID.replace('ca_file = "/etc/patina/ca.pem"', ""));
    expect(errorsOf()).toEqual([
      expect.stringMatching(/gossip\.tls\.ca_file: found nothing; allowed: /),
    ]);
  });

  test("of TOML name the line and the column", () => {
    writeFileSync(file, `${VALID}\nnot toml\n`);
    const line = VALID.split("\n").length + 1;
    expect(errorsOf()).toEqual([
      expect.stringMatching(new RegExp(`patina\\.toml:${line}:\\d+: not valid TOML: `)),
    ]);
  });

  test("of the file's name have a code of their own and say how to name another", () => {
    const missing = join(folder, "nowhere.toml");
    const error = thrown(() => loadConfig({ file: missing }));
    expect(error.code).toBe("CONFIG_UNREADABLE");
    expect(error.message).toMatch(/nowhere\.toml: cannot be read: .*--config/);
  });
});

describe("rules over several keys", () => {
  test.each(["0.0.0.0:8081", "192.0.2.1:8081", "[::]:8081"])("an API on %s needs a token", (at) => {
    expect(withFlags(`api.addr=${at}`)).toEqual([
      expect.stringMatching(/api\.addr: found .*allowed: a loopback address, .*bearer-token/),
    ]);
    expect(withFlags(`api.addr=${at}`, 'api.authz={"bearer-token":"x"}')).toEqual([]);
    const list = `api.addr=["127.0.0.1:8081","${at}"]`;
    expect(withFlags(list)).toEqual([expect.stringMatching(/api\.addr: .*a loopback address/)]);
  });

  test.each([
    ['["127.0.0.1:8081","8082"]', /api\.addr\.1: found "8082"; allowed: host:port/],
    ["[]", /api\.addr: found \[\]; allowed: at least one address/],
    ["8081", /api\.addr: found 8081; allowed: host:port, .*or a list of these/],
  ])("%s is no place for an API", (addr, line) => {
    expect(withFlags(`api.addr=${addr}`)[0]).toMatch(line);
  });

  test("TLS needs an authority unless nobody's certificate is checked", () => {
    const tls = (rest: object): string =>
      `gossip.tls=${JSON.stringify({ cert_file: "s.pem", key_file: "s.key", ...rest })}`;
    const client = { cert_file: "c.pem", key_file: "c.key" };
    const none = expect.stringMatching(/gossip\.tls\.ca_file: found nothing; .*insecure = true/);
    expect(withFlags(tls({}))).toEqual([none]);
    expect(withFlags(tls({ insecure: true, client }))).toEqual([none]);
    expect(withFlags(tls({ insecure: true }))).toEqual([]);
    expect(withFlags(tls({ ca_file: "ca.pem" }))).toEqual([]);
    expect(withFlags(tls({ ca_file: "ca.pem", insecure: true, client }))).toEqual([]);
    const verify_actor = true;
    expect(withFlags(tls({ ca_file: "ca.pem", client, verify_actor }))).toEqual([]);
    const unproved = [expect.stringMatching(/verify_actor: found true; .*only with ca_file/)];
    expect(withFlags(tls({ ca_file: "ca.pem", verify_actor }))).toEqual(unproved);
    expect(withFlags(tls({ ca_file: "ca.pem", client, insecure: true, verify_actor }))).toEqual(
      unproved,
    );
  });

  test.each(["gossip.addr=ams.example:8787", "gossip.external_addr=ams.example:8787"])(
    "replicas are known by IP addresses: %s is refused",
    (flag) => {
      expect(withFlags(flag)).toEqual([expect.stringMatching(/allowed: an IP address and port/)]);
    },
  );

  test("addresses of replicas come out in canonical text", () => {
    const flags = ["gossip.addr=[0:0::0]:8787", "gossip.external_addr=[FD00:0::1]:8787"];
    const { config } = loadConfig({ file, overrides: overridesFromFlags(flags) });
    expect(config.gossip).toMatchObject({ addr: "[::]:8787", external_addr: "[fd00::1]:8787" });
  });

  test("a time longer than a day is refused: its timer would fire at once", () => {
    expect(withFlags("proxy.response_timeout_ms=3000000000")).toEqual([
      expect.stringMatching(/proxy\.response_timeout_ms: .*at most 86400000 ms/),
    ]);
  });

  test("the longest wait between syncs is not below the shortest", () => {
    expect(withFlags("perf.min_sync_backoff=20")).toEqual([
      expect.stringMatching(/perf\.max_sync_backoff: .*at least min_sync_backoff/),
    ]);
  });

  test.each(["127.0.0.1:0", "[::1]:8081", "localhost:8081"])("an API on %s needs none", (at) => {
    expect(withFlags(`api.addr=${at}`)).toEqual([]);
  });

  test.each(['fault.udp_rtt_ms={"127.0.0.1:1":5}', 'fault.tcp_rtt_ms={"[::1]:1":5}'])(
    "%s alone injects nothing: faults have to be enabled",
    (fault) => {
      expect(withFlags(fault)).toEqual([
        expect.stringMatching(/fault\.enabled: found .*allowed: true, because faults/),
      ]);
      expect(withFlags(fault, "fault.enabled=true")).toEqual([]);
    },
  );
});

describe("faults that stall or end an edge", () => {
  test.each([
    "fault.stall_path=/x",
    "fault.livelock_path=/x",
    "fault.crash_path=/x",
    'fault.stall_row={"table":"machines","column":"region","value":"x"}',
  ])("%s is refused unless the watchdog allows it, even with faults enabled", (fault) => {
    expect(withFlags(fault, "fault.enabled=true")).toEqual([
      expect.stringMatching(/fault\.\w+: found .*refused unless watchdog\.allow_fault_injection/),
    ]);
    const allowed = "watchdog.allow_fault_injection=true";
    expect(withFlags(fault, "fault.enabled=true", allowed)).toEqual([]);
  });
});

function withFlags(...flags: readonly string[]): string[] {
  return errorsOf({ overrides: overridesFromFlags(flags) });
}

/** The lines of what is wrong; none = it is valid. */
function errorsOf(options: Omit<Parameters<typeof loadConfig>[0], "file"> = {}): string[] {
  try {
    loadConfig({ file, ...options });
    return [];
  } catch (error) {
    if (!(error instanceof PatinaError)) throw error;
    expect(error.code).toBe("CONFIG_INVALID");
    return error.message.split("\n");
  }
}

function thrown(task: () => unknown): PatinaError {
  try {
    task();
  } catch (error) {
    if (error instanceof PatinaError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const VALID = `
[gossip]
addr = "127.0.0.1:8787"
[gossip.tls]
cert_file = "server.pem"
key_file = "server.key"
ca_file = "/etc/patina/ca.pem"
client = { cert_file = "client.pem", key_file = "client.key" }
[replica]
node = "ams-1"
region = "ams"
`;
