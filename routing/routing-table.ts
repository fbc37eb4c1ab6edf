/**
 * The in-memory table that sends each request to the nearest machine that can take it.
 *
 * Built for one question: hostname -> app -> candidates in order of distance from where this edge
 * stands. It is fed by hand: row changes of the replica's change stream, round-trip samples, and
 * what the data plane and SWIM learn about hosts. A change marks its app; at the end of the batch
 * the app's candidates are made anew as a fresh array, so a request keeps what it started with and
 * a pick allocates nothing. One table per data-plane thread; only requests in flight are shared.
 *
 * When the stream starts over (`reset`), rows are gathered beside the ones in use and take their
 * place when all are there: an edge goes on serving what it knew, and hears of what went down.
 *
 * It does no I/O and reads no clock.
 */
import type { ActorId, ChangeStreamEvent, Watermark } from "../replica/types.ts";
import { DenySet } from "./core/deny-set.ts";
import { LoadSlots } from "./core/load-slots.ts";
import { pickCandidate, type Avoidance, type PickContext, type PickSlot } from "./core/pick.ts";
import { RouteRows } from "./core/route-rows.ts";
import { RttTable, type HostPlace } from "./core/rtt-table.ts";
import {
  isRoutableState,
  parseAddress,
  type MachineRow,
  type NodeRow,
  type ServiceRow,
} from "./core/table-rows.ts";
import type {
  Candidate,
  ExcludedMachine,
  Explanation,
  LoadBand,
  RowChange,
  Standpoint,
  TableRow,
} from "./types.ts";

/** How a table is made. */
export interface RoutingTableOptions {
  readonly standpoint: Standpoint;
  /** Requests in flight, shared by all threads of the process; its own when absent. */
  readonly load?: LoadSlots;
  /** Called before each row is applied, with the row in use: for the watchdog's breadcrumb. */
  readonly onRow?: (change: RowChange, previous: TableRow["row"] | null) => void;
  /** Called before candidates are made of the rows just applied. */
  readonly onRebuild?: (rows: readonly RowChange[], watermark: Watermark) => void;
  /** Called for a service that takes no traffic any more, so that idle connections can go. */
  readonly onGone?: (candidate: Candidate) => void;
}

/** Counters for metrics. */
export interface RoutingTableStats {
  rowsApplied: number;
  resets: number;
  /** Services left out because their address cannot be dialled, counted at each rebuild. */
  badAddresses: number;
  /** Apps whose candidates were made anew. */
  rebuilds: number;
  /** Candidates without a slot for requests in flight: no limit holds. */
  uncounted: number;
}

/** The routing table of one data-plane thread. */
export class RoutingTable {
  readonly load: LoadSlots;
  /** What takes no traffic whatever the rows say; the owner's to fill. */
  readonly denied = new DenySet();
  readonly stats: RoutingTableStats = {
    rowsApplied: 0,
    resets: 0,
    badAddresses: 0,
    rebuilds: 0,
    uncounted: 0,
  };
  readonly #options: RoutingTableOptions;
  readonly #rtt: RttTable;
  #rows = new RouteRows();
  /** Rows gathered since `reset`, until `caughtUp`. */
  #incoming: RouteRows | null = null;
  readonly #candidatesByApp = new Map<string, readonly Candidate[]>();
  /** Candidates to which a connect failed: until when they are avoided, and failures in a row. */
  readonly #failedByKey = new Map<string, { untilMs: number; failures: number }>();
  /** Hosts that SWIM says are down, by actor id: their node row may come later. */
  readonly #downActors = new Set<ActorId>();
  /** Round trips to replicas whose host row is not there yet. */
  readonly #earlyRttByActor = new Map<ActorId, number>();
  readonly #pick: PickSlot = { candidate: null, reason: "noApp" };
  readonly #context: PickContext;
  #rotation = 0;

  constructor(options: RoutingTableOptions) {
    this.#options = options;
    this.load = options.load ?? new LoadSlots(LoadSlots.allocate({}));
    this.#rtt = new RttTable(options.standpoint);
    this.#context = {
      load: this.load,
      denied: this.denied,
      avoidance: (candidate, nowMs) => this.#avoidance(candidate, nowMs),
    };
  }

  /** Takes one event of the change stream. Cost: its rows, plus one rebuild per app touched. */
  apply(event: ChangeStreamEvent): void {
    switch (event.kind) {
      case "reset":
        this.stats.resets++;
        this.#incoming = new RouteRows();
        return;
      case "rows":
        for (const row of event.rows) this.#applyRow(row);
        this.#options.onRebuild?.(event.rows, event.watermark);
        return this.#rebuildDirty();
      case "caughtUp":
        return this.#swapIncoming();
    }
  }

  /**
   * The app a request's host belongs to: the exact name first, then `*.` of its parent. `host` may
   * carry a port and a final dot; letters' case does not matter.
   */
  appOf(host: string): string | null {
    if (this.denied.size > 0 && this.denied.hasHostname(normaliseHost(host))) return null;
    const exact = this.#rows.appIdOf(host);
    if (exact !== undefined) return exact;
    const name = normaliseHost(host);
    const direct = this.#rows.appIdOf(name);
    if (direct !== undefined) return direct;
    const dot = name.indexOf(".");
    return dot < 0 ? null : (this.#rows.appIdOf(`*${name.slice(dot)}`) ?? null);
  }

  /**
   * Decides where a request for `host` goes; see `core/pick.ts` for the rules. The answer is
   * reused: read it before the next call. `excluded` are candidate keys this request tried already.
   */
  pick(host: string, excluded: readonly string[], nowMs: number): Readonly<PickSlot> {
    const appId = this.appOf(host);
    const result = this.#pick;
    if (appId === null) {
      result.candidate = null;
      result.reason = "noApp";
      return result;
    }
    const candidates = this.#candidatesByApp.get(appId) ?? NO_CANDIDATES;
    const rotation = this.#rotation;
    this.#rotation = (rotation + 1) % ROTATION_PERIOD;
    pickCandidate(candidates, { context: this.#context, excluded, nowMs, rotation }, result);
    return result;
  }

  /**
   * Counts a request as in flight on its candidate; pair with `finished`. False = another thread was
   * faster and it is at its hard limit: nothing was counted, pick again.
   */
  started(candidate: Candidate): boolean {
    return this.load.take(candidate.slot, candidate.hardLimit);
  }

  /** Ends what `started` began. */
  finished(candidate: Candidate): void {
    this.load.give(candidate.slot);
  }

  /**
   * A connect to the candidate failed: it is out of this table's picks at once, for 1 s, twice as
   * long after each further failure, at most 30 s, or until its rows say something new.
   */
  connectFailed(candidate: Candidate, nowMs: number): void {
    // One that was taken out meanwhile is not picked again, and nothing would forget it.
    const current = this.#candidatesByApp.get(candidate.appId) ?? NO_CANDIDATES;
    if (!current.some(({ key }) => key === candidate.key)) return;
    const failures = (this.#failedByKey.get(candidate.key)?.failures ?? 0) + 1;
    const waitMs = Math.min(AVOID_MAX_MS, AVOID_MIN_MS * 2 ** (failures - 1));
    this.#failedByKey.set(candidate.key, { untilMs: nowMs + waitMs, failures });
  }

  /** A connect to the candidate took `rttMs`: it is well, and its host is this far away. */
  connected(candidate: Candidate, rttMs: number): void {
    if (this.#failedByKey.size > 0) this.#failedByKey.delete(candidate.key);
    this.sampleRtt({ nodeId: candidate.nodeId }, rttMs);
  }

  /** Takes a round-trip sample to a host, known by its node id or its replica's actor id. */
  sampleRtt(host: { nodeId: string } | { actorId: ActorId }, rttMs: number): void {
    const nodeId = "nodeId" in host ? host.nodeId : this.#rows.nodeIdOfActor(host.actorId);
    if (nodeId === undefined) {
      if ("actorId" in host) this.#keepEarlySample(host.actorId, rttMs);
      return;
    }
    if (!this.#rtt.sample(nodeId, rttMs)) return;
    this.#rows.markNode(nodeId);
    this.#rebuildDirty();
  }

  /** SWIM's word on a host: machines of one that is down are picked as the last resort only. */
  setHostDown(actorId: ActorId, isDown: boolean): void {
    if (isDown) this.#downActors.add(actorId);
    else this.#downActors.delete(actorId);
  }

  /** Machines known, routable or not. */
  get machineCount(): number {
    return this.#rows.machineCount;
  }

  /** Hostnames known, in no order. */
  hostnames(): IterableIterator<string> {
    return this.#rows.hostnames();
  }

  /** Actor ids of the edges that have a row. */
  edgeActors(): Iterable<ActorId> {
    return this.#rows.edgeActors();
  }

  /** The row in use, with the columns that routing reads; null = there is none. */
  row(change: Pick<RowChange, "table" | "key">): TableRow["row"] | null {
    return this.#rows.row(change);
  }

  /** Every row in use, for a file to start from; may be read in pieces, see `RouteRows.rows`. */
  rows(): Generator<TableRow> {
    return this.#rows.rows();
  }

  /** Says for people where `host` goes, and why not elsewhere. */
  explain(host: string, nowMs: number): Explanation {
    const appId = this.appOf(host);
    if (appId === null) return { host, appId, candidates: [], excluded: [] };
    const candidates = (this.#candidatesByApp.get(appId) ?? NO_CANDIDATES).map((candidate) => ({
      candidate,
      inFlight: this.load.inFlight(candidate.slot),
      band: this.#band(candidate),
      avoidedFor: this.denied.hasService(candidate.machineId, candidate.serviceName)
        ? ("denied" as const)
        : this.#avoidance(candidate, nowMs),
    }));
    const excluded: ExcludedMachine[] = [];
    for (const machineId of this.#rows.machinesOf(appId))
      excluded.push(...this.#refusals(machineId));
    return { host, appId, candidates, excluded };
  }

  /** A path is often measured before its host's row has arrived, and not again while unchanged. */
  #keepEarlySample(actorId: ActorId, rttMs: number): void {
    const [oldest] = this.#earlyRttByActor.keys();
    if (this.#earlyRttByActor.size >= EARLY_SAMPLES_MAX && oldest !== undefined) {
      this.#earlyRttByActor.delete(oldest);
    }
    this.#earlyRttByActor.set(actorId, rttMs);
  }

  /** A sample that came before its host's row counts as soon as the row is in use. */
  #useEarlySample(actorId: ActorId): void {
    const rttMs = this.#earlyRttByActor.get(actorId);
    const nodeId = this.#rows.nodeIdOfActor(actorId);
    if (rttMs === undefined || nodeId === undefined) return;
    this.#earlyRttByActor.delete(actorId);
    if (this.#rtt.sample(nodeId, rttMs)) this.#rows.markNode(nodeId);
  }

  #applyRow(change: RowChange): void {
    this.#options.onRow?.(change, this.#rows.row(change));
    this.stats.rowsApplied++;
    // While rows are gathered anew, what they say counts at once for the ones in use too: a machine
    // that went down must not wait for the last row.
    this.#rows.apply(change);
    this.#incoming?.apply(change);
    if (change.table === "nodes") this.#onNode(change);
    else if (this.#failedByKey.size > 0) this.#forgive(change);
  }

  #onNode(change: RowChange): void {
    if (this.#incoming !== null) return;
    const nodeId = String(change.key[0]);
    const actorId = change.row?.["actor_id"];
    if (!this.#rows.hasHost(nodeId)) this.#rtt.forget(nodeId);
    if (typeof actorId === "string") this.#useEarlySample(actorId);
  }

  /** News of a machine ends what earlier failures said about it. */
  #forgive(change: RowChange): void {
    const prefix = `${String(change.key[0])}/`;
    for (const key of this.#failedByKey.keys()) {
      if (key.startsWith(prefix)) this.#failedByKey.delete(key);
    }
  }

  #swapIncoming(): void {
    if (this.#incoming === null) return;
    this.#rows = this.#incoming;
    this.#incoming = null;
    this.#rtt.keepOnly((nodeId) => this.#rows.hasHost(nodeId));
    for (const actorId of this.#earlyRttByActor.keys()) this.#useEarlySample(actorId);
    this.#rows.markAll();
    for (const appId of this.#candidatesByApp.keys()) this.#rows.dirtyApps.add(appId);
    this.#rebuildDirty();
  }

  #rebuildDirty(): void {
    const dirty = this.#rows.dirtyApps;
    if (dirty.size === 0) return;
    for (const appId of dirty) this.#rebuild(appId);
    dirty.clear();
  }

  #rebuild(appId: string): void {
    this.stats.rebuilds++;
    const before = this.#candidatesByApp.get(appId) ?? NO_CANDIDATES;
    const after: Candidate[] = [];
    const slotByKey = new Map(before.map(({ key, slot }) => [key, slot]));
    for (const machineId of this.#rows.machinesOf(appId)) {
      this.#collect(machineId, slotByKey, after);
    }
    after.sort(byDistance);
    if (after.length === 0) this.#candidatesByApp.delete(appId);
    else this.#candidatesByApp.set(appId, after);
    this.stats.uncounted += countUncounted(after) - countUncounted(before);
    // What is left was not taken over.
    for (const candidate of before) if (slotByKey.has(candidate.key)) this.#drop(candidate);
  }

  /** Adds what takes traffic to `into`; slots that it has already are taken out of `slotByKey`. */
  #collect(machineId: string, slotByKey: Map<string, number>, into: Candidate[]): void {
    const machine = this.#rows.machine(machineId);
    if (!machine) return;
    const place = placeOf(machine, this.#rows.node(machine.nodeId));
    const distance = this.#rtt.distance(machine.nodeId, place);
    for (const service of this.#rows.servicesOf(machineId)) {
      if (this.#refusal(machine, service) !== null) continue;
      const address = parseAddress(service.address);
      if (!address) {
        this.stats.badAddresses++;
        continue;
      }
      const isTls = service.protocol === "https";
      const key = `${machineId}/${service.name}@${service.address}${isTls ? "+tls" : ""}`;
      into.push({
        key,
        appId: machine.appId,
        machineId,
        serviceName: service.name,
        host: address.host,
        port: address.port,
        isTls,
        nodeId: machine.nodeId,
        region: machine.region,
        softLimit: service.softLimit > 0 ? service.softLimit : Infinity,
        hardLimit: service.hardLimit,
        rttMs: distance.rttMs,
        isMeasured: distance.isMeasured,
        slot: this.#slotOf(key, slotByKey),
      });
    }
  }

  #slotOf(key: string, slotByKey: Map<string, number>): number {
    const slot = slotByKey.get(key) ?? 0;
    slotByKey.delete(key);
    // One that had none may get one now.
    return slot === 0 ? this.load.hold(key) : slot;
  }

  /** Why a service takes no traffic whatever its address; null when it does. */
  #refusal(machine: MachineRow, service: ServiceRow): string | null {
    if (!isRoutableState(machine.state)) return `the machine's state is "${machine.state}"`;
    if (service.protocol !== "http" && service.protocol !== "https")
      return `its protocol is "${service.protocol}"`;
    if (!this.#rows.isHealthy(machine.id, service.name)) return "a check is not passing";
    return null;
  }

  #refusals(machineId: string): ExcludedMachine[] {
    const machine = this.#rows.machine(machineId);
    const services = [...this.#rows.servicesOf(machineId)];
    if (!machine || services.length === 0) {
      return [{ machineId, serviceName: "", reason: "it has no service" }];
    }
    return services.flatMap((service) => {
      const reason =
        this.#refusal(machine, service) ??
        (parseAddress(service.address) ? null : `"${service.address}" cannot be dialled`);
      return reason === null ? [] : [{ machineId, serviceName: service.name, reason }];
    });
  }

  /** A candidate takes no traffic any more. */
  #drop(candidate: Candidate): void {
    this.load.letGo(candidate.slot);
    this.#failedByKey.delete(candidate.key);
    this.#options.onGone?.(candidate);
  }

  #avoidance(candidate: Candidate, nowMs: number): Avoidance {
    if (this.#failedByKey.size > 0) {
      const failed = this.#failedByKey.get(candidate.key);
      if (failed && nowMs < failed.untilMs) return "connectFailed";
    }
    if (this.#downActors.size > 0) {
      const actorId = this.#rows.node(candidate.nodeId)?.actorId;
      if (actorId !== undefined && this.#downActors.has(actorId)) return "hostDown";
    }
    return "";
  }

  #band(candidate: Candidate): LoadBand {
    const inFlight = this.load.inFlight(candidate.slot);
    if (candidate.hardLimit > 0 && inFlight >= candidate.hardLimit) return "full";
    return inFlight < candidate.softLimit ? "belowSoft" : "softToHard";
  }
}

function countUncounted(candidates: readonly Candidate[]): number {
  let uncounted = 0;
  for (const { slot } of candidates) if (slot === 0) uncounted += 1;
  return uncounted;
}

function byDistance(left: Candidate, right: Candidate): number {
  return left.rttMs - right.rttMs || (left.key < right.key ? -1 : 1);
}

function placeOf(machine: MachineRow, node: NodeRow | undefined): HostPlace {
  const region = machine.region !== "" ? machine.region : (node?.region ?? "");
  return node && node.latitude !== null && node.longitude !== null
    ? { region, coordinates: { latitude: node.latitude, longitude: node.longitude } }
    : { region };
}

/** Lower case, without port and final dot. */
function normaliseHost(host: string): string {
  let end = host.length;
  const colon = host.lastIndexOf(":");
  if (colon > host.lastIndexOf("]")) end = colon;
  if (end > 0 && host.charCodeAt(end - 1) === 0x2e) end--;
  return host.slice(0, end).toLowerCase();
}

const NO_CANDIDATES: readonly Candidate[] = [];
/** More replicas than a cluster has. */
const EARLY_SAMPLES_MAX = 10_000;
const AVOID_MIN_MS = 1_000;
const AVOID_MAX_MS = 30_000;
/** A multiple of every number of equals up to 10, so that turns come out even. */
const ROTATION_PERIOD = 2_520;
