/**
 * Whole objects of the platform (nodes, apps, hostnames, machines with their services and checks)
 * as the HTTP API and the publisher give them, written so that nothing but what differs changes.
 *
 * A row belongs to the node that wrote it first: a write by another is refused (`STORE_OWNER`).
 * Shapes are judged by the caller (the API); here only what would harm the database is.
 */
import type Database from "better-sqlite3";
import type { SqlValue } from "../../types.ts";
import { storeError } from "./errors.ts";
import { quoteName, unseen } from "./sql-text.ts";

/** Kinds of objects, as in the API's paths. */
export type ObjectKind = "nodes" | "apps" | "hostnames" | "machines";

/** A host or an edge. `actorId` is its replica's; coordinates in degrees. */
export interface NodeDocument {
  readonly id: string;
  readonly actorId: string;
  readonly region: string;
  /** `worker` or `edge`. */
  readonly kind: string;
  readonly latitude: number | null;
  readonly longitude: number | null;
  readonly address: string;
}

/** A customer application. */
export interface AppDocument {
  readonly id: string;
  readonly name: string;
}

/** A host name of an app; `id` is the host name itself. */
export interface HostnameDocument {
  readonly id: string;
  readonly appId: string;
}

/** A machine with everything that belongs to it. */
export interface MachineDocument {
  readonly id: string;
  readonly appId: string;
  readonly region: string;
  readonly state: string;
  readonly services: readonly ServiceDocument[];
  readonly checks: readonly CheckDocument[];
}

/** A port of a machine that takes traffic. Limits: requests in flight, 0 = none. */
export interface ServiceDocument {
  readonly name: string;
  readonly address: string;
  readonly protocol: string;
  readonly softLimit: number;
  readonly hardLimit: number;
}

/** A health check of a service. */
export interface CheckDocument {
  readonly service: string;
  readonly name: string;
  readonly status: string;
}

/** The document of each kind. */
export interface DocumentByKind {
  readonly nodes: NodeDocument;
  readonly apps: AppDocument;
  readonly hostnames: HostnameDocument;
  readonly machines: MachineDocument;
}

/** A document as stored, with its owner and the time of its last change (Unix ms). */
export type StoredObject<Kind extends ObjectKind = ObjectKind> = DocumentByKind[Kind] & {
  readonly nodeId: string;
  readonly updatedAtMs: number;
};

/** Who writes and when. */
export interface ObjectWriter {
  /** The node that this replica runs on: owner of what it writes. */
  readonly nodeId: string;
  /** Unix milliseconds. */
  readonly nowMs: number;
}

/** A page of a list. */
export interface ListRequest {
  /** Only ids above this one; empty = from the start. */
  readonly after: string;
  readonly limit: number;
}

/** Reads and writes objects; writes inside a transaction of the caller's. */
export class ObjectStore {
  readonly #database: Database.Database;
  readonly #statements = new Map<string, Database.Statement>();

  constructor(database: Database.Database) {
    this.#database = database;
  }

  /** Writes what differs. Throws `STORE_OWNER` or `STORE_OBJECT`. */
  put<Kind extends ObjectKind>(
    kind: Kind,
    document: DocumentByKind[Kind],
    writer: ObjectWriter,
  ): void {
    const shape = SHAPES[kind];
    const { id } = document;
    if (id === "") throw storeError("STORE_OBJECT", "an id cannot be empty");
    this.#checkOwner(kind, id, writer.nodeId);
    const values = rowValues(shape, document, kind === "nodes" ? null : writer.nodeId);
    this.#putRow({ table: kind, key: [id], keyColumns: [shape.key], values, nowMs: writer.nowMs });
    if (isMachine(kind, document)) this.#putMachineParts(document, writer);
  }

  /** Deletes an object with its parts; false when there was none. Throws `STORE_OWNER`. */
  delete(kind: ObjectKind, id: string, writer: ObjectWriter): boolean {
    if (!this.#checkOwner(kind, id, writer.nodeId)) return false;
    const { key } = SHAPES[kind];
    this.#prepare(`DELETE FROM ${kind} WHERE ${quoteName(key)} = ?`).run(id);
    if (kind === "machines") {
      this.#prepare("DELETE FROM services WHERE machine_id = ?").run(id);
      this.#prepare("DELETE FROM checks WHERE machine_id = ?").run(id);
    }
    return true;
  }

  /** One object, or null. */
  get<Kind extends ObjectKind>(kind: Kind, id: string): StoredObject<Kind> | null {
    const { key } = SHAPES[kind];
    const row = this.#prepare(`SELECT * FROM ${kind} WHERE ${quoteName(key)} = ?`).get(id);
    return row === undefined ? null : this.#toObject<Kind>(kind, toRow(row));
  }

  /** Objects in order of their ids. */
  list<Kind extends ObjectKind>(kind: Kind, request: ListRequest): StoredObject<Kind>[] {
    const key = quoteName(SHAPES[kind].key);
    const rows = this.#prepare(
      `SELECT * FROM ${kind} WHERE ${key} > ? ORDER BY ${key} LIMIT ${unseen("?")}`,
    ).all(request.after, BigInt(request.limit));
    return rows.map((row) => this.#toObject<Kind>(kind, toRow(row)));
  }

  /** Whether the row exists; throws when it is another node's. */
  #checkOwner(kind: ObjectKind, id: string, nodeId: string): boolean {
    const { key, owner: ownerColumn } = SHAPES[kind];
    const present = this.#prepare(
      `SELECT ${quoteName(ownerColumn)} FROM ${kind} WHERE ${quoteName(key)} = ?`,
    )
      .pluck()
      .get(id);
    const ownerId = kind === "nodes" ? id : present;
    // An empty owner is a row that has not arrived whole: nobody's to overwrite but its writer's.
    if ((present !== undefined || kind === "nodes") && ownerId !== nodeId) {
      const owner = String(ownerId) || "(not known yet)";
      const message = `${kind} ${id} is owned by node ${owner}, not by ${nodeId}`;
      throw storeError("STORE_OWNER", message, { details: { kind, id, ownerId, nodeId } });
    }
    return present !== undefined;
  }

  #putMachineParts(machine: MachineDocument, writer: ObjectWriter): void {
    const { nodeId, nowMs } = writer;
    const services = machine.services.map((service) => ({
      key: [machine.id, service.name],
      values: {
        node_id: nodeId,
        address: service.address,
        protocol: service.protocol,
        soft_limit: integer(service.softLimit, "softLimit"),
        hard_limit: integer(service.hardLimit, "hardLimit"),
      },
    }));
    const checks = machine.checks.map((check) => ({
      key: [machine.id, check.service, check.name],
      values: { node_id: nodeId, status: check.status },
    }));
    this.#replaceParts({
      table: "services",
      keyColumns: SERVICE_KEY,
      rows: services,
      machineId: machine.id,
      nowMs,
    });
    this.#replaceParts({
      table: "checks",
      keyColumns: CHECK_KEY,
      rows: checks,
      machineId: machine.id,
      nowMs,
    });
  }

  #replaceParts(parts: PartRows): void {
    const { table, keyColumns, rows, machineId, nowMs } = parts;
    const kept = new Set<string>();
    for (const { key, values } of rows) {
      const label = JSON.stringify(key);
      if (kept.has(label)) throw storeError("STORE_OBJECT", `two ${table} are named ${label}`);
      kept.add(label);
      this.#putRow({ table, key, keyColumns, values, nowMs });
    }
    const where = keyColumns.map((column) => `${column} = ?`).join(" AND ");
    const present = this.#prepare(
      `SELECT ${keyColumns.join(", ")} FROM ${table} WHERE machine_id = ?`,
    );
    for (const key of present.raw().all(machineId) as SqlValue[][]) {
      if (!kept.has(JSON.stringify(key)))
        this.#prepare(`DELETE FROM ${table} WHERE ${where}`).run(...key);
    }
  }

  /** Inserts the row, or updates the columns that differ; `updated_at` moves with them. */
  #putRow(row: RowWrite): void {
    const { table, key, keyColumns, values, nowMs } = row;
    const where = keyColumns.map((column) => `${column} = ?`).join(" AND ");
    const found = this.#prepare(`SELECT * FROM ${table} WHERE ${where}`).get(...key);
    const stamp = BigInt(Math.trunc(nowMs));
    if (found === undefined) {
      const columns = [...keyColumns, ...Object.keys(values), "updated_at"];
      const marks = columns.map(() => "?").join(", ");
      const sql = `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${marks})`;
      this.#prepare(sql).run(...key, ...Object.values(values), stamp);
      return;
    }
    const present = toRow(found);
    const changed = Object.entries(values).filter(([column, value]) => present[column] !== value);
    if (changed.length === 0) return;
    const sets = changed.map(([column]) => `${column} = ?`).join(", ");
    this.#prepare(`UPDATE ${table} SET ${sets}, updated_at = ? WHERE ${where}`).run(
      ...changed.map(([, value]) => value),
      stamp,
      ...key,
    );
  }

  #toObject<Kind extends ObjectKind>(kind: Kind, row: Row): StoredObject<Kind> {
    const { key, owner, columns } = SHAPES[kind];
    const object: Record<string, unknown> = { id: row[key] };
    for (const [field, column] of Object.entries(columns)) object[field] = row[column];
    if (kind === "machines") {
      object["services"] = this.#parts("services", row[key]).map(toService);
      object["checks"] = this.#parts("checks", row[key]).map(toCheck);
    }
    object["nodeId"] = row[owner];
    object["updatedAtMs"] = Number(row["updated_at"]);
    return object as unknown as StoredObject<Kind>;
  }

  #parts(table: string, machineId: SqlValue | undefined): Row[] {
    const rows = this.#prepare(`SELECT * FROM ${table} WHERE machine_id = ? ORDER BY name`).all(
      machineId,
    );
    return rows.map(toRow);
  }

  #prepare(sql: string): Database.Statement {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const prepared = this.#database.prepare(sql);
    this.#statements.set(sql, prepared);
    return prepared;
  }
}

/** Which column holds which field. */
interface Shape {
  readonly key: string;
  readonly owner: string;
  readonly columns: Readonly<Record<string, string>>;
}

const SHAPES: Readonly<Record<ObjectKind, Shape>> = {
  nodes: {
    key: "id",
    owner: "id",
    columns: {
      actorId: "actor_id",
      region: "region",
      kind: "kind",
      latitude: "latitude",
      longitude: "longitude",
      address: "address",
    },
  },
  apps: { key: "id", owner: "node_id", columns: { name: "name" } },
  hostnames: { key: "hostname", owner: "node_id", columns: { appId: "app_id" } },
  machines: {
    key: "id",
    owner: "node_id",
    columns: { appId: "app_id", region: "region", state: "state" },
  },
};
const SERVICE_KEY = ["machine_id", "name"];
const CHECK_KEY = ["machine_id", "service", "name"];

type Row = Readonly<Record<string, SqlValue>>;

interface RowWrite {
  readonly table: string;
  readonly keyColumns: readonly string[];
  readonly key: readonly SqlValue[];
  readonly values: Row;
  readonly nowMs: number;
}

interface PartRows {
  readonly table: string;
  readonly keyColumns: readonly string[];
  readonly rows: readonly { readonly key: readonly SqlValue[]; readonly values: Row }[];
  readonly machineId: string;
  readonly nowMs: number;
}

function rowValues(shape: Shape, document: object, nodeId: string | null): Row {
  const values: Record<string, SqlValue> = nodeId === null ? {} : { node_id: nodeId };
  const fields = document as Readonly<Record<string, SqlValue | undefined>>;
  for (const [field, column] of Object.entries(shape.columns))
    values[column] = fields[field] ?? null;
  return values;
}

function isMachine(kind: ObjectKind, document: object): document is MachineDocument {
  return kind === "machines" && "services" in document;
}

function integer(value: number, name: string): bigint {
  if (!Number.isSafeInteger(value))
    throw storeError("STORE_OBJECT", `${name} must be a whole number`);
  return BigInt(value);
}

function toRow(row: unknown): Row {
  return row as Row;
}

function toService(row: Row): ServiceDocument {
  return {
    name: String(row["name"]),
    address: String(row["address"]),
    protocol: String(row["protocol"]),
    softLimit: Number(row["soft_limit"]),
    hardLimit: Number(row["hard_limit"]),
  };
}

function toCheck(row: Row): CheckDocument {
  return {
    service: String(row["service"]),
    name: String(row["name"]),
    status: String(row["status"]),
  };
}
