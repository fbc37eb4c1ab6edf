/**
 * Tables of the documents that come from declarations in code: metrics, error codes, and the keys
 * and defaults of the config file.
 */
import type { z } from "zod";
import type { MetricDeclaration } from "#base/metric-slots.ts";
import { COMMAND_ERRORS } from "../bin/errors.ts";
import { configFile } from "../proxy/config.ts";
import { PROXY_ERRORS } from "../proxy/errors.ts";
import { PROXY_METRICS } from "../proxy/metrics.ts";
import { CORROSION_DECLARATIONS } from "../replica/driver/corrosion-metrics.ts";
import { ADMIN_ERRORS } from "../replica/driver/admin/errors.ts";
import { API_ERRORS } from "../replica/driver/api/errors.ts";
import { CHECKPOINT_ERRORS } from "../replica/driver/checkpoints/errors.ts";
import { QUERY_ERRORS } from "../replica/driver/query/errors.ts";
import { SUBSCRIPTION_ERRORS } from "../replica/driver/subscriptions/errors.ts";
import { STORE_ERRORS } from "../replica/driver/store/errors.ts";
import { PATINA_METRICS } from "../replica/metrics.ts";
import { watchdogMetrics } from "../watchdog/metric-declarations.ts";

/** Loops of an edge with one data-plane thread. */
const LOOPS = ["main", "replica", "store"];

/** Every metric of our own that a scrape can show, in the order of its areas. */
export const ALL_METRICS: readonly MetricDeclaration[] = [
  ...PROXY_METRICS,
  ...PATINA_METRICS,
  ...watchdogMetrics(LOOPS),
];

/** The generated tables by name; a document holds one between `<!-- table: NAME -->` and its end. */
export const TABLES: Readonly<Record<string, () => string>> = {
  metrics: () => metricTable(ALL_METRICS),
  "corrosion metrics": () => metricTable(CORROSION_DECLARATIONS),
  "proxy errors": () =>
    table(
      ["Code", "Status", "Meaning", "Effect", "Worth another try"],
      Object.entries(PROXY_ERRORS).map(([code, { status, meaning, effect, isRetryable }]) => [
        `\`${code}\``,
        status === 0 ? "none sent" : String(status),
        meaning,
        effect,
        isRetryable ? "yes" : "no",
      ]),
    ),
  "command errors": () =>
    table(
      ["Code", "Meaning", "Effect", "Worth another try"],
      Object.entries({ ...COMMAND_ERRORS, ...ADMIN_ERRORS, ...CHECKPOINT_ERRORS }).map(
        ([code, { meaning, effect, retryable }]) => [
          `\`${code}\``,
          meaning,
          effect,
          retryable ? "yes" : "no",
        ],
      ),
    ),
  "api errors": () =>
    table(
      ["Code", "Status", "Meaning", "Effect", "Worth another try"],
      Object.entries({
        ...STORE_ERRORS,
        ...QUERY_ERRORS,
        ...SUBSCRIPTION_ERRORS,
        ...API_ERRORS,
      }).map(([code, { httpStatus, meaning, effect, retryable }]) => [
        `\`${code}\``,
        String(httpStatus),
        meaning,
        effect,
        retryable ? "yes" : "no",
      ]),
    ),
};

/** Puts a table in place of the one that a document holds under this name. */
export function withTable(document: string, name: string): string {
  const [start, end] = [`<!-- table: ${name} -->`, "<!-- end of table -->"];
  const from = document.indexOf(start);
  const to = document.indexOf(end, from);
  if (from === -1 || to === -1) throw new Error(`the document has no table ${name}`);
  const made = TABLES[name]?.() ?? "";
  return `${document.slice(0, from)}${start}\n\n${made}\n${document.slice(to)}`;
}

/** Names of the tables that a document holds. */
export function tablesIn(document: string): string[] {
  return [...document.matchAll(/<!-- table: ([^>]+?) -->/g)].map((match) => match[1] ?? "");
}

/** Each key of the config file with its default as TOML has it: `required`, `none`, or a value. */
export function configKeys(): Map<string, string> {
  const found = new Map<string, string>();
  collectKeys({ schema: configFile, key: "", absent: "required" }, found);
  return found;
}

/** What the parts of zod say of themselves that matters here. */
interface Definition {
  readonly type: string;
  readonly innerType?: z.core.$ZodType;
  readonly defaultValue?: unknown;
  readonly shape?: Readonly<Record<string, z.core.$ZodType>>;
}

/** `absent` is what a key without a default is: a key of an optional table is not required. */
function collectKeys(
  { schema, key, absent }: { schema: z.core.$ZodType; key: string; absent: string },
  found: Map<string, string>,
): void {
  let presence = absent;
  let inner = schema;
  for (;;) {
    const { type, innerType, defaultValue, shape } = inner._zod.def as unknown as Definition;
    if (shape !== undefined) {
      for (const [name, field] of Object.entries(shape)) {
        const whole = key === "" ? name : `${key}.${name}`;
        collectKeys({ schema: field, key: whole, absent: presence }, found);
      }
      return;
    }
    if (innerType === undefined) break;
    if (type === "optional") presence = "none";
    if (type === "default") presence = tomlText(defaultValue);
    inner = innerType;
  }
  found.set(key, presence);
}

function tomlText(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return JSON.stringify(value);
  const entries = Object.entries(value);
  const inside = entries.map(([name, one]) => `${name} = ${JSON.stringify(one)}`).join(", ");
  return entries.length === 0 ? "{}" : `{ ${inside} }`;
}

function metricTable(metrics: readonly MetricDeclaration[]): string {
  return table(
    ["Metric", "Type", "Labels", "Meaning"],
    metrics.map(({ name, type, labels, help }) => [
      `\`${name}\``,
      type,
      Object.entries(labels ?? {})
        .map(([label, values]) => labelText(label, values))
        .join("; "),
      help,
    ]),
  );
}

function labelText(label: string, values: readonly string[]): string {
  if (values === LOOPS || values.join() === LOOPS.join()) return `\`${label}\`: name of the loop`;
  if (values.length > 10) return `\`${label}\`: an error code, see [errors.md](errors.md)`;
  return `\`${label}\`: ${values.join(", ")}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |\n`;
  return line(head) + `|${head.map(() => "---").join("|")}|\n` + rows.map(line).join("");
}
