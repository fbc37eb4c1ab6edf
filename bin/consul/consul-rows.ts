/**
 * What the services and checks of a Consul agent come to as rows, and which statements make the rows of
 * this node so: those that differ, nothing else. As Corrosion's `consul sync`, with its tables; rows with a
 * `source` are somebody else's.
 *
 * A check counts as changed by its status alone, unless its notes say otherwise
 * (`{"hash_include": ["status", "output"]}`): outputs change with each run of most checks.
 */
import { z } from "zod";

/** A row without its node and time. */
export type ConsulRow = Readonly<Record<string, string | number>> & { readonly id: string };

/** A row as the agent has it, and the columns whose change is news. */
export interface SeenRow {
  readonly row: ConsulRow;
  readonly watched: readonly string[];
}

/** A statement with its parameters, as the API takes it. */
export type ConsulStatement = readonly [sql: string, params: readonly (string | number)[]];

/** One of the two tables. */
export interface ConsulTable {
  readonly kind: "services" | "checks";
  readonly name: string;
  /** Without `node` and `updated_at`; the first is `id`. */
  readonly columns: readonly string[];
  /** Path of the agent's API. */
  readonly path: string;
  /** Reads an answer of the agent; throws what is wrong with it. */
  readonly read: (answer: unknown) => readonly SeenRow[];
}

const agentServices = z.record(
  z.string(),
  z.object({
    ID: z.string(),
    Service: z.string(),
    Tags: z.array(z.string()).nullish(),
    Meta: z.record(z.string(), z.string()).nullish(),
    Port: z.int(),
    Address: z.string(),
  }),
);

const agentChecks = z.record(
  z.string(),
  z.object({
    CheckID: z.string(),
    Name: z.string(),
    Status: z.enum(["passing", "warning", "critical"]),
    Output: z.string(),
    ServiceID: z.string(),
    ServiceName: z.string(),
    Notes: z.string().nullish(),
  }),
);

const directives = z.object({ hash_include: z.array(z.enum(["status", "output"])) });

/** Both tables. */
export const CONSUL_TABLES: readonly ConsulTable[] = [
  {
    kind: "services",
    name: "consul_services",
    columns: ["id", "name", "tags", "meta", "port", "address"],
    path: "/v1/agent/services",
    read: (answer) =>
      Object.values(agentServices.parse(answer)).map((service) => ({
        row: {
          id: service.ID,
          name: service.Service,
          tags: JSON.stringify(service.Tags ?? []),
          meta: JSON.stringify(sortedByKey(service.Meta ?? {})),
          port: service.Port,
          address: service.Address,
        },
        watched: ["name", "tags", "meta", "port", "address"],
      })),
  },
  {
    kind: "checks",
    name: "consul_checks",
    columns: ["id", "service_id", "service_name", "name", "status", "output"],
    path: "/v1/agent/checks",
    read: (answer) =>
      Object.values(agentChecks.parse(answer)).map((check) => ({
        row: {
          id: check.CheckID,
          service_id: check.ServiceID,
          service_name: check.ServiceName,
          name: check.Name,
          status: check.Status,
          output: check.Output,
        },
        watched: ["service_name", "service_id", ...watchedBy(check.Notes ?? "")],
      })),
  },
];

/** What a round comes to for one table. */
export interface TablePlan {
  readonly statements: readonly ConsulStatement[];
  readonly upserted: number;
  readonly deleted: number;
  /** Rows by id once the statements are carried out. */
  readonly rowById: ReadonlyMap<string, ConsulRow>;
}

/**
 * Plans the way from the rows of this node to what the agent has. `isFull` compares every column.
 * O(rows).
 */
export function planTable(
  table: ConsulTable,
  request: {
    readonly node: string;
    readonly known: ReadonlyMap<string, ConsulRow>;
    readonly seen: readonly SeenRow[];
    readonly isFull: boolean;
    readonly hasSource: boolean;
    /** Wall-clock milliseconds. */
    readonly nowMs: number;
  },
): TablePlan {
  const { node, known, seen, isFull, hasSource, nowMs } = request;
  const rowById = new Map<string, ConsulRow>();
  const statements: ConsulStatement[] = [];
  for (const { row, watched } of seen) {
    const before = known.get(row.id);
    const columns = isFull ? table.columns : watched;
    if (before !== undefined && columns.every((column) => before[column] === row[column])) {
      rowById.set(row.id, before);
      continue;
    }
    rowById.set(row.id, row);
    const values = table.columns.map((column) => row[column] ?? "");
    statements.push([upsertOf(table, hasSource), [node, ...values, nowMs]]);
  }
  const upserted = statements.length;
  for (const id of known.keys()) {
    if (!rowById.has(id)) statements.push([deleteOf(table, hasSource), [node, id]]);
  }
  return { statements, upserted, deleted: statements.length - upserted, rowById };
}

function upsertOf({ name, columns }: ConsulTable, hasSource: boolean): string {
  const all = ["node", ...columns, "updated_at"];
  const set = all.slice(2).map((column) => `${column} = excluded.${column}`);
  return (
    `INSERT INTO ${name} (${all.join(", ")}) VALUES (${all.map(() => "?").join(", ")})` +
    ` ON CONFLICT (node, id) DO UPDATE SET ${set.join(", ")}${hasSource ? " WHERE source IS NULL" : ""}`
  );
}

function deleteOf({ name }: ConsulTable, hasSource: boolean): string {
  return `DELETE FROM ${name} WHERE node = ? AND id = ?${hasSource ? " AND source IS NULL" : ""}`;
}

/** Notes are for people; only those that are directives say anything here. */
function watchedBy(notes: string): readonly string[] {
  let value: unknown = null;
  try {
    value = JSON.parse(notes);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const parsed = directives.safeParse(value);
  return parsed.success ? parsed.data.hash_include : ["status"];
}

function sortedByKey(meta: Readonly<Record<string, string>>): Record<string, string> {
  const keys = Object.keys(meta).toSorted();
  return Object.fromEntries(keys.map((key) => [key, meta[key] ?? ""]));
}
