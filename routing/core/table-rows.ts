/**
 * The rows of the routing tables as the replica has them, and what a row means to routing.
 *
 * Rows come from other replicas, so anything may be in them: a value of a wrong type counts as its
 * column's default, an address that cannot be dialled keeps its service out of the table, and
 * neither ever throws.
 */
import type { ImageRow, RowChange } from "../types.ts";

type Row = NonNullable<RowChange["row"]>;

/** A worker host or edge. */
export interface NodeRow {
  readonly id: string;
  readonly actorId: string;
  readonly region: string;
  /** `worker` or `edge`. */
  readonly kind: string;
  readonly latitude: number | null;
  readonly longitude: number | null;
}

/** A machine of an app. */
export interface MachineRow {
  readonly id: string;
  readonly appId: string;
  readonly nodeId: string;
  readonly region: string;
  readonly state: string;
}

/** A port of a machine that takes traffic. */
export interface ServiceRow {
  readonly machineId: string;
  readonly name: string;
  readonly protocol: string;
  readonly address: string;
  readonly softLimit: number;
  readonly hardLimit: number;
}

/** A health check as the worker host sees it; `service` empty = of the whole machine. */
export interface CheckRow {
  readonly machineId: string;
  readonly service: string;
  readonly name: string;
  readonly status: string;
}

/** Reads a `nodes` row. */
export function readNode(row: Row): NodeRow {
  return {
    id: text(row.id),
    actorId: text(row.actor_id),
    region: text(row.region),
    kind: text(row.kind),
    latitude: real(row.latitude),
    longitude: real(row.longitude),
  };
}

/** Reads a `machines` row. */
export function readMachine(row: Row): MachineRow {
  return {
    id: text(row.id),
    appId: text(row.app_id),
    nodeId: text(row.node_id),
    region: text(row.region),
    state: text(row.state),
  };
}

/** Reads a `services` row. */
export function readService(row: Row): ServiceRow {
  return {
    machineId: text(row.machine_id),
    name: text(row.name),
    protocol: text(row.protocol),
    address: text(row.address),
    softLimit: count(row.soft_limit),
    hardLimit: count(row.hard_limit),
  };
}

/** Reads a `checks` row. */
export function readCheck(row: Row): CheckRow {
  return {
    machineId: text(row.machine_id),
    service: text(row.service),
    name: text(row.name),
    status: text(row.status),
  };
}

/** The `nodes` row that reads as this host. */
export function writeNode(id: string, node: NodeRow): ImageRow {
  const { actorId: actor_id, region, kind, latitude, longitude } = node;
  return { id, actor_id, region, kind, latitude, longitude };
}

/** The `checks` row that reads as this check. */
export function writeCheck(machineId: string, { service, name, status }: CheckRow): ImageRow {
  return { machine_id: machineId, service, name, status };
}

/** The `machines` row that reads as this machine. */
export function writeMachine(id: string, machine: MachineRow): ImageRow {
  const { appId: app_id, nodeId: node_id, region, state } = machine;
  return { id, app_id, node_id, region, state };
}

/** The `services` row that reads as this service. */
export function writeService(machineId: string, service: ServiceRow): ImageRow {
  const { name, protocol, address, softLimit: soft_limit, hardLimit: hard_limit } = service;
  return { machine_id: machineId, name, protocol, address, soft_limit, hard_limit };
}

/** Whether a machine in this state takes traffic. */
export function isRoutableState(state: string): boolean {
  return state === "started";
}

/** Whether a check with this status lets traffic through; anything unknown does not. */
export function isPassing(status: string): boolean {
  return status === "passing" || status === "warning";
}

/**
 * Splits `192.0.2.1:80` or `[2001:db8::1]:80`; null when it cannot be dialled. Names are refused:
 * resolving one would make a request wait for DNS.
 */
export function parseAddress(address: string): { host: string; port: number } | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|(\d+\.\d+\.\d+\.\d+)):(\d{1,5})$/.exec(address);
  const port = Number(match?.[3]);
  if (!match || !(port >= 1 && port <= 65_535)) return null;
  const [, v6, v4] = match;
  if (v4 !== undefined) {
    return v4.split(".").every((octet) => Number(octet) <= 255) ? { host: v4, port } : null;
  }
  return v6 !== undefined && isIpv6(v6) ? { host: v6, port } : null;
}

/** Eight groups of up to four hex digits, one run of them abbreviated, IPv4 tail allowed. */
function isIpv6(literal: string): boolean {
  const tail = /:(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(literal);
  if (literal.includes(".") && !tail?.slice(1).every((octet) => Number(octet) <= 255)) return false;
  const plain = tail ? `${literal.slice(0, tail.index)}:0:0` : literal;
  const halves = plain.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return false;
  return halves.length === 2 ? groups.length <= 7 : groups.length === 8;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function real(value: unknown): number | null {
  if (typeof value === "bigint") return Number(value);
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function count(value: unknown): number {
  const number = typeof value === "bigint" ? Number(value) : value;
  return typeof number === "number" && number > 0 && Number.isFinite(number)
    ? Math.floor(number)
    : 0;
}
