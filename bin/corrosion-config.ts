/**
 * What a Corrosion config file says in other words than ours, and what it says that has no meaning
 * here (protocol reference, section 8.1). The first is translated; the second is left out with one
 * line that names the key and what happens instead, so that such a file can be used as it is.
 */

/** A parsed TOML table. */
export type RawTable = Record<string, unknown>;

/** Translates in place what has a name or form of ours; the answer is what to warn of. */
export function translateCorrosion(raw: RawTable): string[] {
  const warnings: string[] = [];
  const api = tableIn(raw, "api");
  if (api !== null) rename(api, "bind_addr", "addr");
  const admin = tableIn(raw, "admin");
  if (admin !== null) rename(admin, "uds_path", "path");
  const gossip = tableIn(raw, "gossip");
  if (Array.isArray(gossip?.["bootstrap"])) {
    const hosts = gossip["bootstrap"] as unknown[];
    const isNamed = (host: unknown): host is string =>
      typeof host === "string" && host.includes("@");
    if (hosts.some(isNamed)) {
      warnings.push("gossip.bootstrap: names are looked up with the system's resolver, not @");
      gossip["bootstrap"] = hosts.map((host) => (isNamed(host) ? host.split("@")[0] : host));
    }
  }
  translateBroadcast(gossip);
  return warnings;
}

/** `broadcast = "gossip" | "plumtree"` and `[gossip.broadcast.plumtree]` are sections of ours. */
function translateBroadcast(gossip: RawTable | null): void {
  const broadcast = gossip?.["broadcast"];
  if (gossip === null || broadcast === undefined) return;
  if (typeof broadcast === "string") {
    gossip["broadcast"] = { method: broadcast };
    return;
  }
  const table = tableIn(gossip, "broadcast");
  const plumtree = table === null ? null : tableIn(table, "plumtree");
  if (table === null || plumtree === null) return;
  delete table["plumtree"];
  gossip["broadcast"] = { method: "plumtree", ...table, ...plumtree };
}

/** What happens instead of `key`, a key that Corrosion knows; null when Corrosion does not either. */
export function insteadOf(key: string): string | null {
  const known = INSTEAD.find(([pattern]) => pattern.test(key));
  return known?.[1] ?? null;
}

/** Takes a dotted key out of a table. */
export function removeKey(raw: RawTable, path: readonly string[]): void {
  const [first, ...rest] = path;
  if (first === undefined) return;
  if (rest.length === 0) {
    delete raw[first];
    return;
  }
  const inner = tableIn(raw, first);
  if (inner !== null) removeKey(inner, rest);
}

function tableIn(raw: RawTable, name: string): RawTable | null {
  const value = raw[name];
  const isTable = typeof value === "object" && value !== null && !Array.isArray(value);
  return isTable ? (value as RawTable) : null;
}

function rename(table: RawTable, from: string, to: string): void {
  if (table[from] === undefined) return;
  table[to] ??= table[from];
  delete table[from];
}

/** Corrosion's keys that have no meaning here. One that a section takes after all is not met. */
const INSTEAD: readonly (readonly [RegExp, string])[] = [
  [/^db\.cache_size_kib$/, "the store's page cache is 64 MiB"],
  [/^api\.pg$/, "there is no PostgreSQL listener"],
  [/^gossip\.client_addr$/, "replicas dial from the address they listen on"],
  [/^gossip\.disable_gso$/, "packets are sent one by one"],
  [/^gossip\.member_id$/, "all replicas of a cluster id exchange state"],
  [/^gossip\.broadcast\.eager_ratios$/, "eager peers follow the order of actor ids"],
  [/^perf\.\w+$/, "queues and batches find their own size"],
  [/^telemetry\.open-telemetry$/, "no traces are exported"],
  [/^log\.(?:format|colors)$/, "logs are lines of JSON"],
  [/^reaper$/, "no rows are reaped"],
];
