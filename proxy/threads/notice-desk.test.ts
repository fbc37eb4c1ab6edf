/** Two desks with certificates that are renewed while they run: what one tells, and the other makes of it. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import {
  createCertificateAuthority,
  issueServerCertificate,
} from "../../replica/driver/certificates/certificates.ts";
import type { TransportCertificates } from "../../replica/driver/quic/tls-config.ts";
import type { ChangeStreamEvent, RowChange, Statement } from "../../replica/types.ts";
import { allocatePeerBounces, PeerBounces } from "../../watchdog/core/peer-bounces.ts";
import { PROXY_METRICS } from "../metrics.ts";
import type { NoticeNews } from "./messages.ts";
import { NoticeDesk, type NoticeDeskOptions } from "./notice-desk.ts";

const CHANGE = { actorId: "w", version: 7, table: "machines", key: "m1", app: "shop" };
const VICTIM = "6d1f3c52-8b30-4f1c-9d55-0c8f8a3d7a11";
const OTHER = "0b8e1d6a-55f2-4b3a-8c1b-6a2f6f0e9c22";
let victim: Edge;
let other: Edge;

beforeEach(async () => {
  const before = await certificates();
  victim = await Edge.create(VICTIM, before);
  other = await Edge.create(OTHER, before);
});

afterEach(() => {
  victim.desk.close();
  other.desk.close();
});

test("a notice is signed and judged with the certificates of the day", async () => {
  victim.certificates = other.certificates = await certificates();
  await victim.desk.held([{ change: CHANGE, expiresMs: Date.now() + 60_000 }], null);
  expect(await other.hears(victim)).toMatchObject([{ actorId: VICTIM }]);
  expect(other.count("taken")).toBe(1);
  expect(other.count("forged")).toBe(0);
});

test("what was told before a renewal is signed anew, once, and stays known to those that come later", async () => {
  await victim.desk.held([{ change: CHANGE, expiresMs: Date.now() + 60_000 }], null);
  victim.certificates = await certificates();
  await victim.desk.renew();
  await victim.desk.renew();
  expect(victim.published).toHaveLength(2);
  other.certificates = victim.certificates;
  expect(await other.hears(victim)).toMatchObject([{ actorId: VICTIM }]);
});

test("a renewal with nothing to tell writes nothing", async () => {
  victim.certificates = await certificates();
  await victim.desk.renew();
  expect(victim.published).toEqual([]);
});

test("a hold that is released takes its notice back, and leaves the others", async () => {
  const second = { ...CHANGE, key: "m2" };
  const expiresMs = Date.now() + 60_000;
  const held = [CHANGE, second].map((change) => ({ change, expiresMs }));
  await victim.desk.held(held, null);
  const [first] = await other.hears(victim);
  await victim.desk.released(CHANGE);
  expect(await other.hears(victim)).toEqual([{ ...first, expiresMs: 0 }]);
  expect([other.count("taken"), other.count("retracted")]).toEqual([2, 1]);
});

test("a notice that has expired is dropped and counted, as one that is forged", async () => {
  await victim.desk.held([{ change: CHANGE, expiresMs: Date.now() - 120_000 }], null);
  expect(await other.hears(victim)).toEqual([]);
  expect(other.count("expired")).toBe(1);
  other.certificates = await certificates();
  await victim.desk.held([{ change: CHANGE, expiresMs: Date.now() + 60_000 }], null);
  expect(await other.hears(victim)).toEqual([]);
  expect(other.count("forged")).toBe(1);
});

test("a bounce is told even where nobody is to be warned of changes, and counted by who wrote it", async () => {
  victim = await Edge.create(VICTIM, victim.certificates, { notice_ms: 0 });
  const bouncedMs = Date.now();
  await victim.desk.held([{ change: CHANGE, expiresMs: bouncedMs + 60_000 }], bouncedMs);
  expect(victim.published).toEqual([{ notices: "", bouncedMs }]);
  expect(await other.hears(victim)).toEqual([]);
  const budget = { peersMax: 1, windowMs: 60_000 };
  expect(other.bounces.count(budget, bouncedMs)).toBe(1);
});

/** One edge's desk, with a replica that keeps what is published and gives what it is given. */
class Edge {
  readonly published: { readonly notices: string; readonly bouncedMs: number }[] = [];
  readonly bounces = new PeerBounces(allocatePeerBounces());
  readonly #actorId: string;
  readonly #slots = MetricSlots.allocate(PROXY_METRICS, 1);
  readonly #news: NoticeNews[] = [];
  #rows: readonly RowChange[] = [];
  #version = 0;
  certificates: TransportCertificates;
  desk!: NoticeDesk;

  private constructor(actorId: string, before: TransportCertificates) {
    this.#actorId = actorId;
    this.certificates = before;
  }

  static async create(
    actorId: string,
    before: TransportCertificates,
    watchdog: { readonly notice_ms?: number } = {},
  ): Promise<Edge> {
    const edge = new Edge(actorId, before);
    const config = { notice_ms: 60_000, quarantine_ms: 3_600_000, ...watchdog };
    edge.desk = await NoticeDesk.open({
      replica: edge.#replica(),
      config: { watchdog: config, replica: { node: "n" } } as NoticeDeskOptions["config"],
      log: createLogger({ level: "error", nowMs: () => 0, write: () => undefined }),
      metrics: edge.#slots.writer(0),
      bounces: edge.bounces,
      onNotice: (news) => edge.#news.push(news),
    });
    return edge;
  }

  /** What becomes of the other's row as it was published last. */
  async hears(from: Edge): Promise<readonly NoticeNews[]> {
    const last = from.published.at(-1);
    const row = { node_id: "n", notices: last?.notices ?? "", bounced_at: last?.bouncedMs ?? 0 };
    this.#version += 1;
    const version = this.#version;
    this.#rows = [{ table: "edge_stalls", key: ["n"], row, actorId: from.#actorId, version }];
    await this.desk.follow();
    return this.#news.splice(0);
  }

  count(result: string): number {
    const name = "patina_quarantine_notices_total";
    const metric = this.#slots.snapshot().find(({ declaration }) => declaration.name === name);
    return metric?.series.find(({ labels }) => labels["result"] === result)?.value ?? Number.NaN;
  }

  #replica(): NoticeDeskOptions["replica"] {
    const current = (): TransportCertificates => this.certificates;
    return {
      actorId: this.#actorId,
      get certificates() {
        return current();
      },
      publish: (statements) => this.#publish(statements),
      changes: () => this.#changes(),
    };
  }

  #publish(statements: readonly Statement[]): Promise<boolean> {
    const params = statements[1]?.params;
    const [notices, bouncedMs] = Array.isArray(params) ? params : [];
    this.published.push({ notices: String(notices), bouncedMs: Number(bouncedMs) });
    return Promise.resolve(true);
  }

  async *#changes(): AsyncGenerator<ChangeStreamEvent, void> {
    const watermark = { databaseId: "d", dbVersion: this.#version };
    yield await Promise.resolve({ kind: "rows", rows: this.#rows, watermark } as const);
  }
}

/** Of an authority of their own: those of another say nothing to it. */
async function certificates(): Promise<TransportCertificates> {
  const nowMs = Date.now();
  const authority = await createCertificateAuthority({ nowMs });
  const server = await issueServerCertificate(authority, { nowMs, addresses: ["192.0.2.1"] });
  return {
    authoritiesPem: authority.certificatePem,
    server,
    client: null,
    checksServers: true,
  };
}
