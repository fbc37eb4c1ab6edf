/**
 * The rules of the house that lint cannot hold: which folder may know which, how files are named and
 * begun, what may not stand in them. Each test gathers every violation, so that one run tells all.
 */
import { builtinModules } from "node:module";
import { expect, test } from "vitest";
import {
  byText,
  commentsOf,
  hasHeader,
  importsOf,
  isCode,
  isInTree,
  isTestCode,
  readTree,
  undocumentedExports,
  withoutComments,
  type Import,
  type SourceFile,
} from "./source-tree.ts";

const tree = readTree();
const code = tree.filter((file) => isCode(file.path));
/** What is shipped, without tests and benchmarks. */
const product = code.filter((file) => !isTestCode(file.path));
const cores = product.filter((file) => file.path.includes("/core/"));
const productImports = product.flatMap(importsOf);

// ------------------------------------------------------------------ who may know whom

test("top-level folders know each other in one direction only", () => {
  const found = productImports
    .filter(({ from, target }) => {
      const [source, other] = [areaOf(from), areaOf(target ?? "")];
      return source !== null && other !== null && source !== other;
    })
    .filter(({ from, target }) => !AREAS_KNOWN[areaOf(from)!]!.includes(areaOf(target!)!));
  expect(shown(found)).toEqual([]);
});

test("base imports nothing outside itself", () => {
  const found = productImports.filter(({ from, target }) => {
    return areaOf(from) === "base" && (target === null || areaOf(target) !== "base");
  });
  expect(shown(found)).toEqual([]);
});

test("routing takes nothing but types from the replica, and works without the rest", () => {
  const found = productImports.filter(
    ({ from, target, isTypeOnly }) =>
      areaOf(from) === "routing" &&
      areaOf(target ?? "") === "replica" &&
      !(isTypeOnly && target === "replica/types.ts"),
  );
  expect(shown(found)).toEqual([]);
});

test("a core imports its own folder's cores and types, and base", () => {
  const found = cores.flatMap(importsOf).filter(({ from, target, isTypeOnly }) => {
    if (target === null) return true;
    if (areaOf(target) === "base") return false;
    const isOwn = areaOf(target) === areaOf(from);
    if (isOwn && /\/core\/|\/(?:types|config)\.ts$/.test(target)) return false;
    return !(isTypeOnly && areaOf(from) === "routing" && target === "replica/types.ts");
  });
  expect(shown(found)).toEqual([]);
});

test("a core has no clock, no chance, no waiting and no log", () => {
  const found = cores.flatMap((file) =>
    matches(file, withoutComments(file.text, { strings: "blank" }), NOT_IN_A_CORE),
  );
  expect(found).toEqual([]);
  const loggers = cores.flatMap(importsOf).filter(({ target }) => target?.endsWith("/logger.ts"));
  expect(shown(loggers)).toEqual([]);
});

test("the simulator never sees a driver", () => {
  const found = code
    .filter((file) => file.path.startsWith("replica/sim/"))
    .flatMap(importsOf)
    .filter(({ specifier, target }) => specifier.startsWith("node:") || isDriver(target));
  expect(shown(found.filter(({ from }) => !isTestCode(from)))).toEqual([]);
  expect(shown(found.filter(({ target }) => isDriver(target)))).toEqual([]);
});

test("nothing imports a driver's or a core's inside from another folder without a reason", () => {
  const used = new Set<string>();
  const found = productImports.filter(({ from, target }) => {
    if (target === null || areaOf(from) === areaOf(target)) return false;
    if (areaOf(target) === null || isPublic(target)) return false;
    const key = `${areaOf(from)} -> ${target}`;
    used.add(key);
    return !Object.hasOwn(INSIDES_KNOWN, key);
  });
  expect(shown(found)).toEqual([]);
  expect(Object.keys(INSIDES_KNOWN).filter((key) => !used.has(key))).toEqual([]);
});

test("nothing but tests and benchmarks imports tests, benchmarks and fixtures", () => {
  const found = productImports.filter(({ target }) => target !== null && isTestCode(target));
  expect(shown(found)).toEqual([]);
});

test("only the edge's entry constructs the whole system", () => {
  const found = productImports.filter(({ target }) => target === "proxy/app.ts");
  expect(found.map(({ from }) => from)).toEqual(["proxy/edge-main.ts"]);
});

test("the supervisor needs no npm package", () => {
  expect(shown(packagesBehind("watchdog/supervisor/main.ts"))).toEqual([]);
});

test("set-up needs no npm package, because it installs them", () => {
  expect(shown(packagesBehind("bin/setup/launch.js"))).toEqual([]);
});

test("every import names a file that exists, with its ending", () => {
  const found = code
    .flatMap(importsOf)
    .filter(({ target }) => target !== null && !isInTree(target));
  expect(shown(found)).toEqual([]);
});

test("Node's own modules are imported with their prefix", () => {
  const builtins = new Set(builtinModules);
  expect(shown(code.flatMap(importsOf).filter((one) => builtins.has(one.specifier)))).toEqual([]);
});

// ------------------------------------------------------------------ files

test("no file re-exports a folder", () => {
  expect(code.map((file) => file.path).filter((path) => /(?:^|\/)index\.\w+$/.test(path))).toEqual(
    [],
  );
  const found = product.flatMap((file) => matches(file, file.text, /^export \*/gm));
  expect(found).toEqual([]);
});

test("file and folder names are kebab-case", () => {
  const found = code
    .map((file) => file.path)
    .filter((path) => !path.split("/").every((part) => KEBAB_NAME.test(part)));
  expect(found).toEqual([]);
});

test("no file name is a dumping ground", () => {
  const found = code.map((file) => file.path).filter((path) => DUMPING_GROUND.test(path));
  expect(found).toEqual([]);
});

test("files stay short: 500 lines, tests 800", () => {
  const found = tree
    .filter((file) => isCode(file.path) || file.path.endsWith(".sql"))
    .map((file) => ({ path: file.path, lines: file.text.split("\n").length - 1 }))
    .filter(({ path, lines }) => lines > (isTestCode(path) ? 800 : 500));
  expect(found).toEqual([]);
});

test("comments stay within 110 columns, where 100 is the aim; the formatter holds code to 100", () => {
  const found = code.flatMap((file) => matches(file, commentsOf(file.text), /^.{110,}\S$/gm));
  expect(found).toEqual([]);
});

test("every module starts by saying what it is", () => {
  const modules = tree.filter(
    ({ path }) => path.endsWith(".sql") || (isCode(path) && !/\.test\.ts$|^[^/]+$/.test(path)),
  );
  expect(modules.filter((file) => !hasHeader(file)).map((file) => file.path)).toEqual([]);
});

test("every exported name has a doc comment", () => {
  expect(product.flatMap(undocumentedExports)).toEqual([]);
});

// ------------------------------------------------------------------ what may not be said

test("work left to do names who, why and where it is written down", () => {
  const found = code.flatMap((file) => matches(file, commentsOf(file.text), UNTRACED_TODO));
  expect(found).toEqual([]);
});

test("texts speak of the project alone: no registry, machine or tracker", () => {
  const found = tree
    .filter(({ path }) => path !== "package-lock.json" && path !== "tests/tidy.test.ts")
    .flatMap((file) => matches(file, file.text, FOREIGN_WORDS));
  expect(found).toEqual([]);
});

test("the lock file names no registry", () => {
  const lock = tree.find(({ path }) => path === "package-lock.json");
  expect(lock).toBeDefined();
  expect(matches(lock!, lock!.text, /"resolved":|https?:\/\/(?:registry|npm)\b/g)).toEqual([]);
});

test("nothing is caught and forgotten without a word on why", () => {
  const found = code.flatMap((file) => {
    const bare = withoutComments(file.text, { strings: "blank" });
    return [...bare.matchAll(FORGOTTEN)].flatMap(({ index, 0: caught }) => {
      const before = file.text.slice(0, index).split("\n").at(-2) ?? "";
      const inside = file.text.slice(index, index + caught.length);
      const isExplained = before.trim().startsWith("//") || inside.includes("// ");
      return isExplained ? [] : [`${file.path}:${lineOf(file.text, index)}`];
    });
  });
  expect(found).toEqual([]);
});

test("classes keep private what is private, and nothing needs more than erasing types", () => {
  const found = product.flatMap((file) =>
    matches(
      file,
      withoutComments(file.text, { strings: "blank" }),
      /^\s*(?:export )?(?:const )?enum \w|^\s*(?:export )?namespace \w|^\s+private (?!constructor)\w/gm,
    ),
  );
  expect(found).toEqual([]);
});

// ------------------------------------------------------------------ tests

test("names of tests are claims: nothing should, and no number stands for a story", () => {
  const found = tests().flatMap((file) =>
    matches(file, file.text, /\b(?:test|it|describe)\b[^"'`\n]*["'`][^"'`]*(?:\bshould\b|#\d)/g),
  );
  expect(found).toEqual([]);
});

test("every test runs, or says on which condition it does", () => {
  const found = tests().flatMap((file) =>
    matches(
      file,
      withoutComments(file.text, { strings: "blank" }),
      /\b(?:test|it|describe)\.(?:only|skip|todo|fails)\b/g,
    ),
  );
  expect(found).toEqual([]);
});

test("tests of cores have no clock of their own", () => {
  const found = tests()
    .filter(({ path }) => path.includes("/core/"))
    .flatMap((file) =>
      matches(
        file,
        withoutComments(file.text, { strings: "blank" }),
        /\bsetTimeout\(|useFakeTimers|\bDate\.now\(/g,
      ),
    );
  expect(found).toEqual([]);
});

// ------------------------------------------------------------------ the rules' own words

/** The area a path belongs to; null for the root's files. `base` is an area of its own. */
function areaOf(path: string): string | null {
  if (path.startsWith("replica/base/")) return "base";
  const top = path.split("/")[0] ?? "";
  return path.includes("/") && Object.hasOwn(AREAS_KNOWN, top) ? top : null;
}

/** A folder's own face: the file named after it, and what it declares for others. */
function isPublic(path: string): boolean {
  if (areaOf(path) === "base") return true;
  return FACES.has(path) || /^\w+\/(?:types|config|metrics|errors)\.ts$/.test(path);
}

function isDriver(path: string | null): boolean {
  return path !== null && path.includes("/driver/");
}

/** All but this one, which names what it forbids. */
function tests(): readonly SourceFile[] {
  return code.filter(({ path }) => path.endsWith(".test.ts") && path !== "tests/tidy.test.ts");
}

/** Imports of npm packages anywhere behind an entry, as far as they are static. */
function packagesBehind(entry: string): Import[] {
  const seen = new Set<string>();
  const packages: Import[] = [];
  const waiting = [entry];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const file = code.find((one) => one.path === path);
    if (file === undefined || seen.has(path)) continue;
    seen.add(path);
    for (const one of importsOf(file).filter(({ isTypeOnly }) => !isTypeOnly)) {
      if (one.target !== null) waiting.push(one.target);
      else if (!one.specifier.startsWith("node:")) packages.push(one);
    }
  }
  expect(seen.size).toBeGreaterThan(3);
  return packages;
}

function shown(imports: readonly Import[]): string[] {
  return imports
    .map(({ from, specifier, isTypeOnly }) => `${from}: ${isTypeOnly ? "type " : ""}${specifier}`)
    .toSorted(byText);
}

/** Each place where the pattern is met, as `path:line text`. */
function matches(file: SourceFile, text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map(({ index, 0: found }) => {
    return `${file.path}:${lineOf(text, index)} ${found.trim().slice(0, 60)}`;
  });
}

function lineOf(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}

/** Area -> areas it may import from. */
const AREAS_KNOWN: Readonly<Record<string, readonly string[]>> = {
  base: [],
  replica: ["base"],
  routing: ["base", "replica"],
  watchdog: ["base"],
  proxy: ["base", "replica", "routing", "watchdog"],
  bin: ["base", "replica", "routing", "watchdog", "proxy"],
  bench: ["base", "replica", "routing", "watchdog", "proxy", "bin", "tests"],
  tests: ["base", "replica", "routing", "watchdog", "proxy", "bin", "bench"],
};

/** Insides that another folder knows, each with its reason; one that is not used fails the test. */
const INSIDES_KNOWN: Readonly<Record<string, string>> = {
  "proxy -> replica/config-fields.ts": "one wording for addresses and durations in all sections",
  "proxy -> replica/schema": "the app gives the store Patina's own tables, whoever else adds some",
  "proxy -> replica/driver/store/store-thread.ts":
    "the app owns the store: data planes follow its stream beside the replica",
  "proxy -> replica/driver/store-fault.ts":
    "a store that cannot be opened for want of room is told of as one that cannot be written",
  "proxy -> replica/driver/checkpoints/checkpoint-keeper.ts":
    "checkpoints are taken beside the replica, and may come before it",
  "proxy -> replica/driver/store/store-worker.ts": "entry of that thread",
  "proxy -> replica/driver/store/store-client.ts": "a data plane's end of the change stream",
  "proxy -> replica/driver/store/table-snapshot.ts":
    "a data plane's first table, before there is a replica",
  "proxy -> replica/driver/quic/options.ts": "shape of the injected UDP faults",
  "proxy -> routing/core/load-slots.ts":
    "requests in flight are counted across threads: the app allocates, each table attaches",
  "proxy -> routing/core/deny-set.ts": "breadcrumbs name rows as the quarantine finds them again",
  "proxy -> routing/core/quarantine.ts": "the app keeps it over a restart, for all tables",
  "proxy -> routing/core/quarantine-gate.ts": "a data plane has one before its table",
  "proxy -> routing/core/canary.ts": "what a table waits with is kept and shown outside of it",
  "proxy -> replica/driver/certificates/transport-certificates.ts":
    "notices are signed with the replica's key",
  "proxy -> replica/driver/quic/tls-config.ts": "shape of these certificates",
  "proxy -> routing/core/shapes.ts": "shapes outlive the process in the table's file",
  "proxy -> watchdog/driver/stall-files.ts": "the quarantine judges the evidence",
  "proxy -> watchdog/driver/alerting-log.ts": "every thread's log tells alerts to the supervisor",
  "proxy -> watchdog/core/peer-bounces.ts": "numbers that the replica hears and the watchdog reads",
  "proxy -> watchdog/core/thaw.ts": "a freeze is the quarantine's, and ends by these numbers",
  "proxy -> watchdog/core/loop-beat.ts": "what a thread beats with; the type alone",
  "proxy -> watchdog/supervisor/exit-codes.ts": "one table of exit codes for all processes",
  "proxy -> watchdog/driver/write-line.ts":
    "an order is answered on the pipe that beats go through",
  "proxy -> watchdog/supervisor/driver/upgrade-files.ts":
    "where the config of the next edge process is written",
  "proxy -> watchdog/supervisor/supervisor-config.ts":
    "the effective config carries the supervisor's section",
  "bin -> proxy/effective-config.ts": "run freezes the config before it becomes the supervisor",
  "bin -> proxy/quarantine-keeper.ts": "quarantine list of an edge that does not run",
  "bin -> routing/core/quarantine.ts": "shape of what quarantine list shows",
  "bin -> routing/core/canary.ts": "and of what waits",
  "bin -> proxy/table-file.ts": "restore removes the table of the database that is gone",
  "bin -> proxy/exit-code-of.ts": "one table of exit codes for all processes",
  "bin -> replica/driver/admin/admin-client.ts": "commands that ask a running replica",
  "bin -> replica/driver/admin/message-json.ts": "debug decode shows messages",
  "bin -> replica/driver/api/json.ts": "query prints integers of 64 bits as they are",
  "bin -> replica/driver/store/backup.ts": "backup and restore, beside the running replica",
  "bin -> replica/driver/checkpoints/checkpoints.ts": "and checkpoints, which they are kept as",
  "bin -> replica/driver/store/database.ts": "actor init makes the database with its id",
  "bin -> replica/driver/store/schema-offline.ts": "schema, beside the running replica or without",
  "bin -> replica/driver/store/schema-plan.ts": "shape of what schema plan shows",
  "bin -> proxy/schema-sources.ts": "schema files are read as an edge reads them",
  "bin -> replica/driver/admin/errors.ts": "codes of backup files",
  "bin -> replica/driver/certificates/certificates.ts": "tls commands, and the demo's authority",
  "proxy -> replica/driver/corrosion/corrosion-mirror.ts":
    "rows of another engine, in the replica's thread",
  "proxy -> replica/driver/corrosion/mirrored-table.ts": "shape of the rows that are there before",
  "proxy -> replica/driver/store/staged-database.ts": "it takes its place before the store opens",
  "bin -> replica/driver/store/staged-database.ts": "a restore or rebuild of a replica that runs",
  "bin -> proxy/rebuild-hold.ts": "where routing waits for a rebuild",
  "bin -> replica/driver/certificates/handshake-probe.ts": "tls rotate asks members first",
  "bin -> replica/driver/quic/peer-identity.ts": "and keeps the actor that a certificate names",
  "bin -> replica/driver/quic/tls-config.ts": "shape of what it asks with",
  "bin -> replica/sim/setup.ts": "npm run sim draws setups from seeds",
  "bin -> replica/sim/simulation.ts": "and runs them",
  "bin -> replica/sim/situations.ts": "and looks at what a sweep has been through",
  "bin -> routing/core/rtt-table.ts": "the demo's map emulates the round trips of its distances",
  "bin -> watchdog/driver/stall-files.ts": "stalls reads the evidence",
  "bin -> watchdog/supervisor/driver/upgrade-files.ts":
    "upgrade finds the supervisor and reads its report",
  "bin -> watchdog/core/systemd.ts": "run asks whether systemd passed sockets",
  "bin -> watchdog/supervisor/main.ts": "what run becomes",
  "bin -> watchdog/supervisor/supervisor.ts": "what run does itself, with sockets of systemd's",
  "bin -> watchdog/supervisor/supervisor-config.ts": "which it reads as the supervisor does",
};

const FACES: ReadonlySet<string> = new Set([
  "replica/replica.ts",
  "routing/routing-table.ts",
  "watchdog/watchdog.ts",
]);
const NOT_IN_A_CORE =
  /\b(?:async|await|Promise|Date|performance|setTimeout|setInterval|setImmediate|queueMicrotask|process|console|Buffer|crypto|localeCompare|WeakRef|FinalizationRegistry|Math\.random)\b/g;
const FORGOTTEN = /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}|\.catch\(\(\) => \{\s*\}\)/g;
const KEBAB_NAME = /^\.?[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*)*$/;
const DUMPING_GROUND = /(?:^|[/-])(?:utils?|helpers?|managers?|common|misc)(?:[/.-]|$)/;
/** With a name, a reason and a place: `TODO(mara): shed by weight (docs/decisions/0003-schema.md)`. */
const UNTRACED_TODO = /\b(?:FIXME|XXX|HACK)\b|\bTODO\b(?!\([\w-]+\): .+\(.+\))/g;
/** Hosts of package registries, paths of one machine, and trackers' numbers. */
const FOREIGN_WORDS =
  /https?:\/\/[\w.-]*(?:registry|crates|npm)[\w.-]*\/|(?<![\w.])\/(?:work|root)\/|\bissue #?\d/gi;
