/**
 * The rows of the routing tables with the indexes that a rebuild of candidates needs, and the set
 * of apps whose candidates are older than their rows.
 *
 * ```
 * hostname -> app      app -> machines      node -> machines
 * machine -> services, checks               actor -> node
 * ```
 */
import type { ActorId } from "../../replica/types.ts";
import type { RowChange, TableRow } from "../types.ts";
import {
  isPassing,
  readCheck,
  readMachine,
  readNode,
  readService,
  writeCheck,
  writeMachine,
  writeNode,
  writeService,
  type CheckRow,
  type MachineRow,
  type NodeRow,
  type ServiceRow,
} from "./table-rows.ts";

/** Rows by key, and what they touch. */
export class RouteRows {
  /** Apps to rebuild; the owner clears it. */
  readonly dirtyApps = new Set<string>();
  readonly #nodeById = new Map<string, NodeRow>();
  readonly #nodeIdByActor = new Map<ActorId, string>();
  readonly #appIdByHostname = new Map<string, string>();
  readonly #machineById = new Map<string, MachineRow>();
  readonly #machineIdsByApp = new Map<string, Set<string>>();
  readonly #machineIdsByNode = new Map<string, Set<string>>();
  readonly #servicesByMachine = new Map<string, Map<string, ServiceRow>>();
  readonly #checksByMachine = new Map<string, Map<string, CheckRow>>();

  /** Takes one row. Tables that do not matter to routing are ignored. */
  apply(change: RowChange): void {
    const id = String(change.key[0]);
    switch (change.table) {
      case "nodes":
        return this.#applyNode(id, change.row);
      case "hostnames":
        return this.#applyHostname(id.toLowerCase(), change.row);
      case "machines":
        return this.#applyMachine(id, change.row);
      case "services": {
        const name = String(change.key[1]);
        const row = change.row === null ? null : readService(change.row);
        setRow(this.#servicesByMachine, { id, name, row });
        return this.#markMachine(id);
      }
      case "checks": {
        const name = `${String(change.key[1])}/${String(change.key[2])}`;
        const row = change.row === null ? null : readCheck(change.row);
        setRow(this.#checksByMachine, { id, name, row });
        return this.#markMachine(id);
      }
      default:
        return;
    }
  }

  /** Marks every app that has a machine on this host. */
  markNode(nodeId: string): void {
    for (const machineId of this.#machineIdsByNode.get(nodeId) ?? []) this.#markMachine(machineId);
  }

  /** Marks every app that has a machine. */
  markAll(): void {
    for (const appId of this.#machineIdsByApp.keys()) this.dirtyApps.add(appId);
  }

  /** Whether all checks that concern the service pass. */
  isHealthy(machineId: string, serviceName: string): boolean {
    for (const check of this.#checksByMachine.get(machineId)?.values() ?? []) {
      if (check.service !== "" && check.service !== serviceName) continue;
      if (!isPassing(check.status)) return false;
    }
    return true;
  }

  /** The app of a normalised hostname. */
  appIdOf(hostname: string): string | undefined {
    return this.#appIdByHostname.get(hostname);
  }

  /** The host row of a node id. */
  node(nodeId: string): NodeRow | undefined {
    return this.#nodeById.get(nodeId);
  }

  /** Whether a host has a row, or a machine that names it. */
  hasHost(nodeId: string): boolean {
    return this.#nodeById.has(nodeId) || this.#machineIdsByNode.has(nodeId);
  }

  /** The host on which this replica runs. */
  nodeIdOfActor(actorId: ActorId): string | undefined {
    return this.#nodeIdByActor.get(actorId);
  }

  /** Replicas of the edges, in no order. */
  *edgeActors(): Generator<ActorId> {
    for (const { kind, actorId } of this.#nodeById.values()) if (kind === "edge") yield actorId;
  }

  /** A machine's row. */
  machine(machineId: string): MachineRow | undefined {
    return this.#machineById.get(machineId);
  }

  /** Machine ids of an app. */
  machinesOf(appId: string): Iterable<string> {
    return this.#machineIdsByApp.get(appId) ?? [];
  }

  /** Services of a machine. */
  servicesOf(machineId: string): Iterable<ServiceRow> {
    return this.#servicesByMachine.get(machineId)?.values() ?? [];
  }

  /** All hostnames, in no order. */
  hostnames(): IterableIterator<string> {
    return this.#appIdByHostname.keys();
  }

  get machineCount(): number {
    return this.#machineById.size;
  }

  /** A row as `rows` gives it; null = there is none. */
  row({ table, key }: Pick<RowChange, "table" | "key">): TableRow["row"] | null {
    const [id = "", second = "", third = ""] = key.map(String);
    switch (table) {
      case "nodes": {
        const node = this.#nodeById.get(id);
        return node ? writeNode(id, node) : null;
      }
      case "hostnames": {
        const app_id = this.#appIdByHostname.get(id.toLowerCase());
        return app_id === undefined ? null : { hostname: id.toLowerCase(), app_id };
      }
      case "machines": {
        const machine = this.#machineById.get(id);
        return machine ? writeMachine(id, machine) : null;
      }
      case "services": {
        const service = this.#servicesByMachine.get(id)?.get(second);
        return service ? writeService(id, service) : null;
      }
      case "checks": {
        const check = this.#checksByMachine.get(id)?.get(`${second}/${third}`);
        return check ? writeCheck(id, check) : null;
      }
      default:
        return null;
    }
  }

  /**
   * Every row, in the form that `apply` takes. Rows may change while it is under way: each is then
   * given as it was or as it is, and a reader that hears of the change again ends up the same.
   */
  *rows(): Generator<TableRow> {
    for (const [id, node] of this.#nodeById) {
      yield { table: "nodes", key: [id], row: writeNode(id, node) };
    }
    for (const [hostname, app_id] of this.#appIdByHostname) {
      yield { table: "hostnames", key: [hostname], row: { hostname, app_id } };
    }
    for (const [id, machine] of this.#machineById) {
      yield { table: "machines", key: [id], row: writeMachine(id, machine) };
    }
    for (const [id, services] of this.#servicesByMachine) {
      for (const service of services.values()) {
        yield { table: "services", key: [id, service.name], row: writeService(id, service) };
      }
    }
    for (const [id, checks] of this.#checksByMachine) {
      for (const check of checks.values()) {
        const { service, name } = check;
        yield { table: "checks", key: [id, service, name], row: writeCheck(id, check) };
      }
    }
  }

  #applyNode(id: string, row: RowChange["row"]): void {
    const before = this.#nodeById.get(id);
    if (before && this.#nodeIdByActor.get(before.actorId) === id) {
      this.#nodeIdByActor.delete(before.actorId);
    }
    if (row === null) {
      this.#nodeById.delete(id);
    } else {
      const node = readNode(row);
      this.#nodeById.set(id, node);
      if (node.actorId !== "") this.#nodeIdByActor.set(node.actorId, id);
    }
    this.markNode(id);
  }

  #applyHostname(hostname: string, row: RowChange["row"]): void {
    const appId = row?.app_id;
    if (typeof appId === "string" && appId !== "") this.#appIdByHostname.set(hostname, appId);
    else this.#appIdByHostname.delete(hostname);
  }

  #applyMachine(id: string, row: RowChange["row"]): void {
    const before = this.#machineById.get(id);
    if (before) {
      removeFrom(this.#machineIdsByApp, before.appId, id);
      removeFrom(this.#machineIdsByNode, before.nodeId, id);
      this.dirtyApps.add(before.appId);
      this.#machineById.delete(id);
    }
    if (row === null) return;
    const machine = readMachine(row);
    this.#machineById.set(id, machine);
    addTo(this.#machineIdsByApp, machine.appId, id);
    addTo(this.#machineIdsByNode, machine.nodeId, id);
    this.dirtyApps.add(machine.appId);
  }

  #markMachine(machineId: string): void {
    const machine = this.#machineById.get(machineId);
    if (machine) this.dirtyApps.add(machine.appId);
  }
}

function addTo(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  if (ids) ids.add(id);
  else index.set(key, new Set([id]));
}

function removeFrom(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  if (!ids) return;
  ids.delete(id);
  if (ids.size === 0) index.delete(key);
}

function setRow<Row>(
  index: Map<string, Map<string, Row>>,
  entry: { id: string; name: string; row: Row | null },
): void {
  const rows = index.get(entry.id);
  if (entry.row === null) {
    rows?.delete(entry.name);
    if (rows?.size === 0) index.delete(entry.id);
  } else if (rows) {
    rows.set(entry.name, entry.row);
  } else {
    index.set(entry.id, new Map([[entry.name, entry.row]]));
  }
}
