/**
 * Machines and hostnames that take no traffic whatever the table says, checked at each pick.
 *
 * It lets a delete or a health failure take effect without running the table's code for its row:
 * plain sets, no row read beyond its state, no candidates made anew. A machine stays denied as long
 * as one of its rows denies it.
 */
import type { RowChange } from "../types.ts";
import { isPassing, isRoutableState } from "./table-rows.ts";

/** Denied machines, by the rows that deny them. */
export class DenySet {
  /** Machine -> row -> service; the empty service stands for the whole machine. */
  #byMachine = new Map<string, Map<string, string>>();
  #hostnames = new Set<string>();

  /** Machines and hostnames denied. */
  get size(): number {
    return this.#byMachine.size + this.#hostnames.size;
  }

  /** Makes a change count that takes something out of service; see `isDown`. */
  deny(change: Pick<RowChange, "table" | "key">): void {
    const [first, second] = change.key;
    const id = String(first);
    if (change.table === "hostnames") {
      this.#hostnames.add(id.toLowerCase());
      return;
    }
    const rows = this.#byMachine.get(id) ?? new Map<string, string>();
    rows.set(rowId(change), change.table === "machines" ? "" : String(second ?? ""));
    this.#byMachine.set(id, rows);
  }

  /** Ends what an earlier version of this row denied. */
  allow(change: Pick<RowChange, "table" | "key">): void {
    if (this.size === 0) return;
    const id = String(change.key[0]);
    if (change.table === "hostnames") this.#hostnames.delete(id.toLowerCase());
    const rows = this.#byMachine.get(id);
    if (rows === undefined) return;
    rows.delete(rowId(change));
    if (rows.size === 0) this.#byMachine.delete(id);
  }

  /** Whether a service takes no traffic. */
  hasService(machineId: string, serviceName: string): boolean {
    const rows = this.#byMachine.get(machineId);
    if (rows === undefined) return false;
    for (const service of rows.values()) if (service === "" || service === serviceName) return true;
    return false;
  }

  /** Whether a hostname, in lower case, leads nowhere. */
  hasHostname(hostname: string): boolean {
    return this.#hostnames.has(hostname);
  }

  /** Takes over what another one says. */
  replaceWith(other: DenySet): void {
    this.#byMachine = other.#byMachine;
    this.#hostnames = other.#hostnames;
  }
}

/**
 * Whether a change takes something out of service: a machine, service or hostname deleted, a
 * machine that stops running, a check that fails. Such a change is never held back. Deleting a
 * check or a host's row takes nothing out.
 */
export function isDown({ table, row }: Pick<RowChange, "table" | "row">): boolean {
  switch (table) {
    case "machines":
      return row === null || typeof row.state !== "string" || !isRoutableState(row.state);
    case "services":
    case "hostnames":
      return row === null;
    case "checks":
      return row !== null && (typeof row.status !== "string" || !isPassing(row.status));
    default:
      return false;
  }
}

/** A row by its table and key, as one text. */
export function rowId({ table, key }: Pick<RowChange, "table" | "key">): string {
  return `${table} ${keyText(key)}`;
}

/** A key as one line of text, by which breadcrumbs and lists name it. */
export function keyText(key: RowChange["key"]): string {
  return key.map(String).join(",").replaceAll("\n", " ");
}
