/**
 * A running replica: membership, broadcast and sync over QUIC, state in the store worker, and the
 * HTTP API. Runs in the calling thread, which should be its own.
 *
 * Start order: identity from the store, transport, machine, API, then the own `nodes` row. The store
 * is started by whoever owns the process, because other threads read its change stream.
 */
import type { MessagePort } from "node:worker_threads";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricWriter } from "#base/metric-slots.ts";
import { createPrng } from "#base/prng.ts";
import type {
  ApiConfig,
  DbConfig,
  GossipConfig,
  PerfConfig,
  ReplicaIdentityConfig,
} from "./config.ts";
import { BROADCAST_DEFAULTS } from "./core/broadcast/types.ts";
import { Hlc, unixMsToNtp64 } from "./core/hlc.ts";
import { RECOVERY_DEFAULTS, type RecoveryConfig } from "./core/recovery/recovery.ts";
import { ReplicaCore } from "./core/replica-core.ts";
import { lanPreset, wanPreset } from "./core/swim/config.ts";
import type { SwimEvent } from "./core/swim/events.ts";
import { SYNC_CLIENT_LAN, SYNC_CLIENT_WAN } from "./core/sync/config.ts";
import { reloadSchema } from "./driver/admin/admin-commands.ts";
import type { AdminServer } from "./driver/admin/admin-server.ts";
import { openAdmin, type AdminOptions } from "./driver/admin/open-admin.ts";
import { withAddressOfMachine } from "./driver/advertised-host.ts";
import type { ApiRequest } from "./driver/api/api-request.ts";
import { openApi, type OpenApi } from "./driver/api/open-api.ts";
import {
  advertisedAddress,
  brakeOf,
  broadcastOf,
  isOpenToStrangers,
  openZstd,
  syncServerOf,
  urgentColumnsOf,
  warnOfStrangers,
} from "./driver/gossip-options.ts";
import { resolveBootstrap, type ResolvedBootstrap } from "./driver/bootstrap.ts";
import { fromRecords, toRecord } from "./driver/member-records.ts";
import * as watching from "./driver/certificates/certificate-watch.ts";
import { transportProtection } from "./driver/certificates/transport-certificates.ts";
import type { FaultInjection } from "./driver/quic/options.ts";
import { mayBeAmong } from "./driver/quic/peer-identity.ts";
import { QuicTransport } from "./driver/quic/quic-transport.ts";
import type { TransportCertificates } from "./driver/quic/tls-config.ts";
import { ReplicaDriver } from "./driver/replica-driver.ts";
import { ReplicaMetrics } from "./driver/replica-metrics.ts";
import { statusOf } from "./driver/replica-status.ts";
import { StoreFaultWatch } from "./driver/store-fault.ts";
import { StoreClient } from "./driver/store/store-client.ts";
import { logSwimEvent } from "./driver/swim-log.ts";
import type { ActorId, Address, Statement } from "./types.ts";

export type { EdgeQuestion } from "./driver/admin/admin-commands.ts";

/** What a replica is made of. */
export interface ReplicaOptions {
  readonly db: DbConfig;
  readonly gossip: GossipConfig;
  readonly api: ApiConfig;
  readonly perf: PerfConfig;
  readonly identity: ReplicaIdentityConfig;
  /** What the own `nodes` row says. */
  readonly kind: "edge" | "worker";
  /** A port from `StoreThread.connect`. */
  readonly storePort: MessagePort;
  /** Path of the cr-sqlite extension, for queries that read its tables. */
  readonly extensionPath: string;
  /** Path of the extension for SQL deadlines. */
  readonly deadlinePath: string;
  readonly log: Logger;
  readonly metrics: MetricWriter;
  /** Default: `RECOVERY_DEFAULTS`; tests are less patient. */
  readonly recovery?: RecoveryConfig;
  /** Emulated network; demos and tests only. */
  readonly faults?: FaultInjection;
  readonly events: ReplicaEvents;
  /** The admin socket; absent = none. */
  readonly admin?: AdminOptions;
}

/** What a replica tells whoever started it. */
export interface ReplicaEvents {
  /** A round trip to another replica's host, in ms. */
  rtt(actorId: ActorId, rttMs: number): void;
  /** SWIM's word on another replica. */
  host(actorId: ActorId, isDown: boolean): void;
  /**
   * Said once: after a sync round nothing is missing that others could give, or there is nobody to
   * learn from.
   */
  synced(): void;
  /** Nothing can be written, and that lasts: why; null = it can be again. */
  storeFault(reason: string | null): void;
  /** The store cannot go on: the process should end and say why. */
  failed(error: Error): void;
}

/** A running replica. */
export interface Replica {
  readonly actorId: ActorId;
  /** Address under which others dial it. */
  readonly gossipAddress: Address;
  /** What it proves itself with at present; null with `gossip.plaintext`. */
  readonly certificates: TransportCertificates | null;
  /** The first one at which the API is served. */
  readonly apiAddress: Address;
  /** Members, heads and needs, as plain JSON. */
  status(): unknown;
  /** Commits one version of ours and broadcasts it; false = own versions are in doubt, nothing is done. */
  publish(statements: readonly Statement[]): Promise<boolean>;
  /** See `StoreClient.changes`. */
  changes(...options: Parameters<StoreClient["changes"]>): ReturnType<StoreClient["changes"]>;
  /** Looks at certificates and applies schema files anew, all or nothing; logs what came of it. */
  reload(): Promise<void>;
  /** Saves the members, leaves the cluster if asked to, and closes everything but the store. */
  stop(options: { leave: boolean }): Promise<void>;
}

/**
 * Starts a replica. Rejects with `TRANSPORT_BIND`, `TRANSPORT_TLS`, `CERTIFICATE_UNREADABLE`,
 * `API_BIND` or an error of the store; nothing is left open then but the store.
 */
export async function startReplica(options: ReplicaOptions): Promise<Replica> {
  const store = await StoreClient.connect(options.storePort);
  const gossip = withAddressOfMachine(options.gossip, options.log);
  const running = new RunningReplica({ ...options, gossip }, store);
  try {
    await running.start();
  } catch (error) {
    await running.stop({ leave: false });
    throw error;
  }
  return running;
}

class RunningReplica implements Replica {
  readonly #options: ReplicaOptions;
  readonly #store: StoreClient;
  readonly #wallOffsetMs = Date.now() - performance.now();
  readonly #metrics: ReplicaMetrics;
  readonly #storeFault: StoreFaultWatch;
  readonly #actorIdByAddress = new Map<Address, ActorId>();
  #core: ReplicaCore | null = null;
  #driver: ReplicaDriver | null = null;
  #transport: QuicTransport | null = null;
  #api: OpenApi | null = null;
  #admin: AdminServer | null = null;
  #hasSynced = false;
  /** Members are restored: what SWIM knows may replace what was saved. */
  #hasJoined = false;
  #certificates: watching.CertificateWatch | null = null;
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(options: ReplicaOptions, store: StoreClient) {
    this.#options = options;
    this.#store = store;
    this.#metrics = new ReplicaMetrics(options.metrics);
    this.#storeFault = new StoreFaultWatch(options);
  }

  get actorId(): ActorId {
    return this.#store.actorId;
  }

  get gossipAddress(): Address {
    return this.#core?.swim.self.addr ?? "";
  }

  get certificates(): TransportCertificates | null {
    return this.#certificates?.current ?? null;
  }

  get apiAddress(): Address {
    return this.#api?.addresses[0] ?? "";
  }

  async start(): Promise<void> {
    const transport = await this.#openTransport();
    const self = advertisedAddress(this.#options.gossip, transport.local);
    const core = this.#createCore(self);
    this.#core = core;
    this.#driver = this.#createDriver(core);
    this.#lateEvents.driver = this.#driver;
    this.#driver.attach(transport);
    this.#api = await this.#openApi(core, this.#driver);
    await this.#openAdmin({ core, driver: this.#driver, api: this.#api });
    const { members, bad } = fromRecords(await this.#store.loadMembers());
    if (bad > 0) this.#options.log.warn?.("members-unreadable", "saved members left out", { bad });
    const { addresses, unresolved } = await this.#resolve(self);
    this.#driver.run({ kind: "start", bootstrap: addresses, members });
    this.#hasJoined = true;
    await this.#publishOwnNode(self);
    const others = members.filter(({ state }) => state !== "down").length;
    if (addresses.length + unresolved + others === 0) this.#noteSynced(0);
    this.#startTimers(self);
    this.#options.log.info?.("replica-started", `${self} is up`, {
      replica: this.actorId,
      gossip: self,
      api: this.#api.addresses.join(", "),
    });
  }

  status(): unknown {
    if (!this.#core) return { state: "starting" };
    return statusOf(this.#core, this.#storeFault.reason, this.#certificates?.view ?? null);
  }

  async publish(statements: readonly Statement[]): Promise<boolean> {
    const core = this.#core;
    if (core === null || core.isRecovering) return false;
    const { commit } = await this.#store.transact(statements, core.stamp(performance.now()));
    if (commit) this.#driver?.committed(commit);
    return true;
  }

  changes(...options: Parameters<StoreClient["changes"]>): ReturnType<StoreClient["changes"]> {
    return this.#store.changes(...options);
  }

  async reload(): Promise<void> {
    await this.#certificates?.look();
    const [{ admin, log }, core, driver] = [this.#options, this.#core, this.#driver];
    if (!admin || !core || !driver) return;
    const [store, { readSchema }] = [this.#store, admin];
    const stamp = (): bigint => core.stamp(performance.now());
    try {
      log.info?.("schema-reloaded", await reloadSchema({ core, store, driver, readSchema, stamp }));
    } catch (error) {
      log.error("schema-not-reloaded", errorText(error));
    }
  }

  async stop(options: { leave: boolean }): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.#admin?.close();
    await this.#api?.close();
    // A store that fails must not keep the replica from leaving.
    if (this.#hasJoined) await this.#keep(this.#saveMembers(), "members-not-saved");
    this.#driver?.stop(options);
    await this.#transport?.close();
    this.#store.close();
  }

  /** The transport is opened before the machine exists, because the machine needs its address. */
  readonly #lateEvents: { driver: ReplicaDriver | null } = { driver: null };

  async #openTransport(): Promise<QuicTransport> {
    const { gossip, faults, log } = this.#options;
    const certificates = await transportProtection(gossip, this.actorId, Date.now());
    warnOfStrangers(gossip, log);
    const late = this.#lateEvents;
    const transport = await QuicTransport.open(
      {
        local: gossip.addr,
        certificates,
        idleTimeoutMs: gossip.idle_timeout_secs * 1000,
        maxUdpPayload: gossip.max_mtu,
        mayBe: (target, id) => mayBeAmong(this.#core?.swim.members ?? [], target, id),
        // What a stranger can make us hold is kept small.
        ...(isOpenToStrangers(gossip) ? { limits: { uniStreamsMax: 256 } } : {}),
        ...(faults ? { faults } : {}),
      },
      {
        datagram: (...packet) => late.driver?.transportEvents.datagram(...packet),
        uniFrames: (...stream) => late.driver?.transportEvents.uniFrames(...stream),
        biStream: (stream) =>
          late.driver ? late.driver.transportEvents.biStream(stream) : stream.abort(),
        rtt: (...sample) => late.driver?.transportEvents.rtt(...sample),
        connection: (...edge) => late.driver?.transportEvents.connection(...edge),
      },
    );
    this.#transport = transport;
    const rejoin = (): unknown => late.driver?.run({ kind: "rejoin" });
    const parts = { gossip, log, rejoin, transport };
    this.#certificates = watching.watchCertificates(parts, certificates);
    return transport;
  }

  #createCore(self: Address): ReplicaCore {
    const { gossip, perf, identity } = this.#options;
    const isLan = gossip.preset === "lan";
    const hlc = new Hlc();
    const wallNtp64 = (): bigint => unixMsToNtp64(Date.now());
    const clusterId = this.#store.clusterId ?? gossip.cluster_id;
    const sync = isLan
      ? SYNC_CLIENT_LAN
      : {
          ...SYNC_CLIENT_WAN,
          backoffMinMs: perf.min_sync_backoff * 1000,
          backoffMaxMs: perf.max_sync_backoff * 1000,
        };
    return new ReplicaCore({
      self: {
        id: this.#store.actorId,
        addr: self,
        ts: hlc.stamp(wallNtp64()),
        clusterId,
        memberId: null,
      },
      swim: isLan ? lanPreset : wanPreset,
      broadcast: {
        ...BROADCAST_DEFAULTS,
        ...broadcastOf(gossip),
        actorId: this.#store.actorId,
        clusterId,
        urgentColumns: urgentColumnsOf(identity),
      },
      brake: brakeOf(identity),
      syncClient: sync,
      syncServer: syncServerOf(gossip),
      books: this.#store.books,
      actorsMax: identity.actors_max,
      prng: createPrng(crypto.getRandomValues(new Uint32Array(1))[0] ?? 1),
      hlc,
      wallNtp64,
      ...(this.#store.isInDoubt ? { recovery: this.#recovery() } : {}),
    });
  }

  #recovery(): RecoveryConfig {
    const { log, recovery } = this.#options;
    log.warn?.(
      "own-versions-in-doubt",
      "a power loss or a restored file may have taken versions of ours that others have; nothing" +
        " is written until they were asked",
    );
    return recovery ?? RECOVERY_DEFAULTS;
  }

  #createDriver(core: ReplicaCore): ReplicaDriver {
    const { gossip, log, events, identity, perf } = this.#options;
    return new ReplicaDriver({
      applyLimitMs: perf.apply_limit_secs * 1000,
      zstd: openZstd(gossip, log),
      urgentColumns: urgentColumnsOf(identity),
      core,
      store: this.#store,
      log,
      onSwimEvent: (event) => this.#onSwimEvent(event),
      onCommitLag: (seconds) => this.#metrics.commitLag.observe(seconds),
      onRtt: (address, rttMs) => {
        this.#metrics.rtt.observe(rttMs / 1000);
        const actorId = this.#actorIdByAddress.get(address);
        if (actorId !== undefined) events.rtt(actorId, rttMs);
      },
      onSyncFinished: (appliedVersions) => this.#noteSynced(appliedVersions),
      onSettled: (head) => {
        log.info?.("own-versions-settled", `writing goes on above version ${head}`, { head });
        void this.#keep(this.#publishOwnNode(this.gossipAddress), "own-node-not-published");
      },
      onStoreFailure: (error) => events.failed(error),
    });
  }

  /**
   * Caught up for the first time: what is learnt later is news like any other. What nobody can give
   * (a version that died with its origin, one that our schema does not know) must not keep an edge
   * from serving for ever, so a round that brought nothing more counts too.
   */
  #noteSynced(appliedVersions: number): void {
    if (this.#hasSynced || !this.#core) return;
    if (appliedVersions > 0 && this.#core.books.isLacking()) return;
    this.#hasSynced = true;
    this.#options.events.synced();
    void this.#keep(this.#publishOwnNode(this.gossipAddress), "own-node-not-published");
  }

  #onSwimEvent(event: SwimEvent): void {
    const { log, events } = this.#options;
    logSwimEvent(event, log);
    switch (event.kind) {
      case "memberUp": {
        const { actor } = event;
        this.#actorIdByAddress.set(actor.addr, actor.id);
        const rttMs = this.#core?.rings.rttMs(actor.addr) ?? null;
        if (rttMs !== null) events.rtt(actor.id, rttMs);
        return events.host(actor.id, false);
      }
      case "memberDown":
        this.#forgetAddress(event.actor);
        return events.host(event.actor.id, true);
      case "renamed":
        this.#forgetAddress(event.before);
        return void this.#actorIdByAddress.set(event.after.addr, event.after.id);
      default:
        return;
    }
  }

  /** Unless another replica has taken the address over. */
  #forgetAddress({ addr, id }: { readonly addr: Address; readonly id: ActorId }): void {
    if (this.#actorIdByAddress.get(addr) === id) this.#actorIdByAddress.delete(addr);
  }

  #openApi(core: ReplicaCore, driver: ReplicaDriver): Promise<OpenApi> {
    const status = (): unknown => this.status();
    const onQuery: ApiRequest["onQuery"] = (result, seconds) =>
      this.#metrics.queryTime[result].observe(seconds);
    return openApi({ ...this.#options, store: this.#store, core, driver, status, onQuery });
  }

  async #openAdmin(parts: {
    core: ReplicaCore;
    driver: ReplicaDriver;
    api: OpenApi;
  }): Promise<void> {
    const { core, driver, api } = parts;
    const { admin, log } = this.#options;
    if (!admin) return;
    this.#admin = await openAdmin(admin, {
      core,
      driver,
      store: this.#store,
      status: () => this.status(),
      stamp: () => core.stamp(performance.now()),
      subscriptions: api.streams,
      log,
    });
  }

  #resolve(self: Address): Promise<ResolvedBootstrap> {
    return resolveBootstrap(this.#options.gossip.bootstrap, self, this.#options.log);
  }

  /**
   * Says where this host is, whose replica runs on it, and how it is reached; if it differs. Again
   * after catching up: a row from before the database was lost may have won over the one written
   * into the empty one.
   */
  async #publishOwnNode(address: Address): Promise<void> {
    const { identity, kind } = this.#options;
    // Follows when own versions are settled.
    if (identity.publish_node === false || this.#core?.isRecovering) return;
    const commit = await this.#store.putObject(
      "nodes",
      {
        id: identity.node,
        actorId: this.actorId,
        region: identity.region,
        kind,
        latitude: identity.latitude ?? null,
        longitude: identity.longitude ?? null,
        address,
      },
      this.#core?.stamp(performance.now()) ?? 0n,
    );
    if (commit) this.#driver?.committed(commit);
  }

  #startTimers(self: Address): void {
    const databasePath = this.#options.db.path;
    const every = (periodMs: number, what: string, task: () => Promise<void>): void => {
      this.#timers.push(setInterval(() => void this.#keep(task(), what), periodMs));
    };
    every(METRICS_PERIOD_MS, "metrics-failed", async () => {
      const [core, driver, transport, api] = [this.#core, this.#driver, this.#transport, this.#api];
      if (!core || !driver || !transport || !api) return;
      const certificates = this.#certificates;
      const parts = { core, driver, transport, api, databasePath, certificates };
      const stats = await this.#store.stats();
      this.#storeFault.take(stats.fault, performance.now());
      this.#metrics.report(parts, stats);
    });
    every(watching.CERTIFICATES_PERIOD_MS, "certificates-failed", async () =>
      this.#certificates?.look(),
    );
    every(MEMBERS_PERIOD_MS, "members-not-saved", () => this.#saveMembers());
    every(BOOTSTRAP_PERIOD_MS, "bootstrap-failed", async () => {
      const { addresses } = await this.#resolve(self);
      this.#driver?.run({ kind: "bootstrap", addresses });
      await this.#publishOwnNode(self);
    });
  }

  /** Owns a promise whose failure changes nothing: the next period tries again. */
  async #keep(task: Promise<void>, what: string): Promise<void> {
    await task.catch((error: unknown) => this.#options.log.warn?.(what, errorText(error)));
  }

  async #saveMembers(): Promise<void> {
    const core = this.#core;
    if (core === null) return;
    const nowMs = performance.now() + this.#wallOffsetMs;
    await this.#store.saveMembers(
      core.swim.records.map((member) => toRecord(member, core.rings, nowMs)),
    );
  }
}

const METRICS_PERIOD_MS = 1_000;
/** Corrosion's: members are compared with the table every 60 s; here ten, so that RTTs survive. */
const MEMBERS_PERIOD_MS = 10_000;
const BOOTSTRAP_PERIOD_MS = 60_000; // Names of bootstrap hosts may move.
