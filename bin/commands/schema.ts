/**
 * `patina schema plan` and `patina schema apply`: what a change of the tables would cost, and the change
 * itself, through the replica that runs or on the file of one that does not.
 */
import { existsSync } from "node:fs";
import { PatinaError } from "#base/errors.ts";
import { readSchemaPaths, type SchemaSource as SchemaFile } from "../../proxy/schema-sources.ts";
import { askAdmin } from "../../replica/driver/admin/admin-client.ts";
import {
  applyToFile,
  planForFile,
  type OfflineSchema,
} from "../../replica/driver/store/schema-offline.ts";
import {
  DISK_FACTOR,
  SAMPLE_ROWS,
  type SchemaPlan,
  type TablePlan,
} from "../../replica/driver/store/schema-plan.ts";
import { crsqlitePath, sqlDeadlinePath } from "../setup/paths.js";
import { adminTarget, databaseTarget, type GlobalOptions } from "../targets.ts";

/** Flags of both commands. */
export interface SchemaOptions extends GlobalOptions {
  /** Above the budget, too. */
  readonly allow?: boolean;
  readonly json?: boolean;
}

/** Prints what would happen; changes nothing. Throws `SCHEMA_BUDGET` without `--allow`. */
export function planFiles(paths: readonly string[], options: SchemaOptions): void {
  const plan = planOf(readFiles(paths), options);
  const text = options.json === true ? `${JSON.stringify(plan, null, 2)}\n` : planText(plan);
  process.stdout.write(text);
  refuseAbove(plan, options);
}

/** Brings the database to the files, all of them or none. Throws `SCHEMA_BUDGET` without `--allow`. */
export async function applyFiles(paths: readonly string[], options: SchemaOptions): Promise<void> {
  const files = readFiles(paths);
  const plan = planOf(files, options);
  process.stdout.write(planText(plan));
  refuseAbove(plan, options);
  const done = (await applyRunning(files, options)) ?? applyToFile(targetOf(files, options));
  process.stdout.write(`${done}\n`);
}

function readFiles(paths: readonly string[]): SchemaFile[] {
  const files = readSchemaPaths(paths, "FILES");
  if (files.length > 0) return files;
  throw new PatinaError("USAGE", `${paths.join(", ")}: no .sql file there`);
}

function planOf(files: readonly SchemaFile[], options: SchemaOptions): SchemaPlan {
  const target = targetOf(files, options);
  if (!existsSync(target.path)) {
    process.stderr.write(`${target.path} does not exist: planned for an empty database\n`);
  }
  return planForFile(target);
}

function targetOf(files: readonly SchemaFile[], options: SchemaOptions): OfflineSchema {
  const extensionPath = crsqlitePath();
  const deadlinePath = sqlDeadlinePath();
  return { path: databaseTarget(options), files, extensionPath, deadlinePath };
}

function refuseAbove({ exceeded }: SchemaPlan, options: SchemaOptions): void {
  if (exceeded.length === 0 || options.allow === true) return;
  throw new PatinaError("SCHEMA_BUDGET", `${exceeded.join("\n")}\n--allow lifts the budget`);
}

/** Through the admin socket; null = no replica runs there. */
async function applyRunning(
  files: readonly SchemaFile[],
  options: SchemaOptions,
): Promise<string | null> {
  const path = adminTarget(options);
  if (!existsSync(path)) return null;
  const request = { Schema: { Apply: { files } } };
  let answer = "";
  try {
    for await (const reply of askAdmin({ path, silenceMs: APPLY_SILENCE_MS }, request)) {
      if (reply.kind === "log") answer = reply.msg;
    }
  } catch (error) {
    // A socket that a replica left behind: nobody listens.
    if (isRefusedConnection(error)) return null;
    throw error;
  }
  return answer;
}

function isRefusedConnection(error: unknown): boolean {
  if (!(error instanceof PatinaError) || error.code !== "ADMIN_UNREACHABLE") return false;
  const { cause } = error;
  return cause instanceof Error && "code" in cause && cause.code === "ECONNREFUSED";
}

function planText({ tables, exceeded }: SchemaPlan): string {
  const lines = tables.flatMap(tableText);
  const isRehearsed = tables.some(({ rows, statements }) => rows > 0 && statements.length > 0);
  if (isRehearsed) {
    lines.push(
      `estimated from a rehearsal in memory with up to ${amount(SAMPLE_ROWS)} of the rows, times` +
        ` ${DISK_FACTOR} for the disk`,
    );
  }
  for (const sentence of exceeded) lines.push(`above the budget: ${sentence}`);
  return `${lines.join("\n")}\n`;
}

function tableText(plan: TablePlan): string[] {
  const kept = plan.columnsKept.length === 0 ? [] : [`stay: ${plan.columnsKept.join(", ")}`];
  const lines = [`${plan.table}  (${plan.source})`];
  if (plan.statements.length === 0) return [...lines, "  nothing to do", ...kept.map(indented)];
  const waiting = `${amount(plan.keptChanges)} changes kept aside are merged`;
  return [
    ...lines,
    ...plan.statements.map((statement) => indented(statement.replaceAll(/\s+/g, " "))),
    ...[
      `rows ${amount(plan.rows)}, touched ${amount(plan.rowsTouched)}`,
      `changes emitted ${amount(plan.changesEmitted)}, ${amount(plan.bytesPerReplica)} bytes per replica`,
      `writes wait ${plan.lockSeconds.toFixed(3)} s`,
      ...(plan.keptChanges > 0 ? [waiting] : []),
      ...kept,
    ].map(indented),
  ];
}

function indented(line: string): string {
  return `  ${line}`;
}

function amount(value: number): string {
  return value.toLocaleString("en");
}

/** A large table that is adopted is one transaction; nothing is said meanwhile. */
const APPLY_SILENCE_MS = 900_000;
