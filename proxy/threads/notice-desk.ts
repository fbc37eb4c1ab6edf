/**
 * Tells other edges of changes that stalled this one, and hears what stalled them. It runs in the
 * replica's thread, which goes on while a data plane is stuck.
 *
 * The row of this node in `edge_stalls` holds its notices, newest first. It is written before the
 * watchdog kills the process, as an urgent change, and again after the next start where there was
 * no time for it (a crash by an exception).
 */
import type { MessagePort } from "node:worker_threads";
import { assert, errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricWriter } from "#base/metric-slots.ts";
import { transportCertificates } from "../../replica/driver/certificates/transport-certificates.ts";
import type { TransportCertificates } from "../../replica/driver/quic/tls-config.ts";
import type { Replica } from "../../replica/replica.ts";
import type { RowChange, Statement } from "../../replica/types.ts";
import { readSuspect, type ChangeName } from "../../routing/core/quarantine.ts";
import type { PeerBounces } from "../../watchdog/core/peer-bounces.ts";
import type { LastWords } from "../../watchdog/types.ts";
import { readBuildId } from "../build-id.ts";
import type { PatinaConfig } from "../config.ts";
import {
  changeHash,
  ENTRIES_MAX,
  readNotices,
  signEntry,
  writeNotices,
  type SignedEntry,
} from "../stall-notice.ts";
import type { NoticeNews } from "./messages.ts";

/** What a desk needs. */
export interface NoticeDeskOptions {
  readonly replica: Pick<Replica, "actorId" | "publish" | "changes" | "certificates">;
  readonly config: Pick<PatinaConfig, "gossip" | "replica" | "watchdog">;
  readonly log: Logger;
  readonly metrics: MetricWriter;
  /** Where what others say of their bounces goes. */
  readonly bounces: PeerBounces;
  /** A notice that counts has come. */
  readonly onNotice: (news: NoticeNews) => void;
}

/** A change that is held here, for others to know. */
export interface HeldChange {
  readonly change: ChangeName;
  /** Unix milliseconds. */
  readonly expiresMs: number;
}

/** What this edge says of a change; see `NoticeEntry`. */
interface OwnNotice {
  readonly change: string;
  readonly expires: number;
  /** When it is left out of the row. */
  readonly keptUntilMs: number;
}

/** One per edge process. */
export class NoticeDesk {
  readonly #options: NoticeDeskOptions;
  readonly #build = readBuildId();
  /** What there is instead of the replica's, with `gossip.plaintext`. */
  readonly #unauthenticated: TransportCertificates | null;
  #own: readonly OwnNotice[] = [];
  /** The certificate that goes with the row as it was published last. */
  #publishedWith = "";
  #renewal: NodeJS.Timeout | undefined;
  #port: MessagePort | null = null;
  #changes: ReturnType<Replica["changes"]> | null = null;
  /** Already counted: a row comes whole with each of its changes. */
  readonly #counted = new Set<string>();

  private constructor(options: NoticeDeskOptions, unauthenticated: TransportCertificates | null) {
    this.#options = options;
    this.#unauthenticated = unauthenticated;
  }

  /** Rejects with `CERTIFICATE_UNREADABLE`. */
  static async open(options: NoticeDeskOptions): Promise<NoticeDesk> {
    const { replica, config } = options;
    if (replica.certificates !== null) return new NoticeDesk(options, null);
    return new NoticeDesk(options, await transportCertificates(config.gossip, Date.now()));
  }

  /** Answers the watchdog's last words when the notice is on its way, whatever became of it. */
  listen(port: MessagePort): void {
    port.on("message", (words: LastWords) => {
      void this.#onStall(words).finally(() => {
        setTimeout(() => port.postMessage("told"), SENDING_MS);
      });
    });
    port.unref();
    this.#port = port;
  }

  /**
   * Tells of changes held since a start, and of the bounce before it, unless that is known already:
   * an edge that crashed had no time to say so.
   */
  async held(changes: readonly HeldChange[], bouncedMs: number | null): Promise<void> {
    const news = changes.map(noticeOf).filter(({ change, expires }) => {
      return !this.#own.some((one) => one.change === change && one.expires >= expires);
    });
    await this.#publish(news, bouncedMs);
  }

  /** Takes a warning back: an operator has the change applied here. */
  async released(change: ChangeName): Promise<void> {
    const keptUntilMs = Date.now() + this.#validMs;
    await this.#publish([{ change: changeHash(change), expires: 0, keptUntilMs }], null);
  }

  /** Signs anew what others are to know, where the certificate has been renewed since. */
  async renew(): Promise<void> {
    const isCurrent = this.#publishedWith === this.#certificates.server.certificatePem;
    if (isCurrent || this.#entriesWith([]).length === 0) return;
    await this.#publish([], null, { isRenewal: true });
  }

  /** Hears the others' notices, those in the database first, until `close` or the store's end. */
  async follow(): Promise<void> {
    this.#changes = this.#options.replica.changes({ from: null, tables: ["edge_stalls"] });
    for await (const event of this.#changes) {
      if (event.kind === "rows") for (const row of event.rows) this.#onRow(row);
    }
  }

  /** Lets go of what would keep the thread alive. */
  close(): void {
    clearInterval(this.#renewal);
    this.#port?.close();
    void this.#changes?.return?.();
  }

  async #onStall({ action, breadcrumb }: LastWords): Promise<void> {
    const { quarantine_ms } = this.#options.config.watchdog;
    const suspect = readSuspect(breadcrumb);
    const nowMs = Date.now();
    // What goes down must reach everybody, and what has no name cannot be told.
    const isNamed = suspect?.kind === "row" && !suspect.isDown && suspect.change.version > 0;
    const held = isNamed ? [{ change: suspect.change, expiresMs: nowMs + quarantine_ms }] : [];
    await this.#publish(held.map(noticeOf), action === "bounce" ? nowMs : null);
  }

  /** A failure costs the others' warning, and nothing else. */
  async #publish(
    all: readonly OwnNotice[],
    bouncedMs: number | null,
    { isRenewal = false } = {},
  ): Promise<void> {
    const { replica, config, log, metrics } = this.#options;
    const added = config.watchdog.notice_ms === 0 ? [] : all;
    if (added.length === 0 && bouncedMs === null && !isRenewal) return;
    try {
      const entries = this.#entriesWith(added);
      const { certificatePem } = this.#certificates.server;
      const text = entries.length === 0 ? "" : writeNotices(certificatePem, this.#signed(entries));
      const row = { nodeId: config.replica.node, text, bouncedMs };
      if (!(await replica.publish(statementsOf(row, Date.now())))) return;
      this.#own = entries;
      this.#publishedWith = certificatePem;
      this.#renewal ??= setInterval(() => void this.renew(), RENEWAL_PERIOD_MS).unref();
      const sent = added.filter(({ expires }) => expires > 0).length;
      metrics.counter("patina_quarantine_notices_total", { result: "sent" }).add(sent);
    } catch (error) {
      log.warn?.("notice-not-sent", `others are not warned: ${errorText(error)}`);
    }
  }

  #entriesWith(added: readonly OwnNotice[]): readonly OwnNotice[] {
    const nowMs = Date.now();
    const kept = this.#own.filter(
      ({ change, keptUntilMs }) =>
        keptUntilMs > nowMs && !added.some((one) => one.change === change),
    );
    return [...added, ...kept].slice(0, ENTRIES_MAX);
  }

  /** All of them by the key of today: one certificate goes with the row. */
  #signed(entries: readonly OwnNotice[]): readonly SignedEntry[] {
    const { keyPem } = this.#certificates.server;
    const signer = { build: this.#build, actor: this.#options.replica.actorId };
    return entries.map(({ change, expires }) => signEntry({ change, expires, ...signer }, keyPem));
  }

  /** As they are at present: they may be renewed while this runs. */
  get #certificates(): TransportCertificates {
    const certificates = this.#options.replica.certificates ?? this.#unauthenticated;
    assert(certificates !== null, "a replica has certificates, or the desk has some instead");
    return certificates;
  }

  /** Longest that a notice holds. */
  get #validMs(): number {
    return this.#options.config.watchdog.quarantine_ms * DOUBLINGS + AFTER_HOLD_MS;
  }

  #onRow({ row, actorId, version }: RowChange): void {
    const { replica, onNotice, metrics, log, bounces } = this.#options;
    if (row === null || actorId === replica.actorId) return;
    // By who wrote it: nobody speaks for two.
    bounces.note(actorId, { bouncedMs: Number(row["bounced_at"]), nowMs: Date.now() });
    const text = typeof row["notices"] === "string" ? row["notices"] : "";
    const rules = {
      authoritiesPem: this.#certificates.authoritiesPem,
      writer: actorId,
      build: this.#build,
      nowMs: Date.now(),
      validMs: this.#validMs,
    };
    for (const [at, notice] of readNotices(text, rules).entries()) {
      const what = notice.ok
        ? `${notice.value.change} ${notice.value.expires}`
        : `${notice.error} ${version} ${at}`;
      if (!this.#isNews(`${actorId} ${what}`)) continue;
      const isRetracted = notice.ok && notice.value.expires === 0;
      const result = notice.ok ? (isRetracted ? "retracted" : "taken") : notice.error;
      metrics.counter("patina_quarantine_notices_total", { result }).add(1);
      if (notice.ok) {
        const { change: hash, expires: expiresMs } = notice.value;
        const said = isRetracted
          ? "an edge takes its notice back"
          : "a change stalled another edge";
        log.warn?.(`notice-${result}`, said, { actorId, hash });
        onNotice({ kind: "notice", actorId, hash, expiresMs });
      } else if (notice.error === "forged") {
        log.warn?.("notice-forged", "a notice that its writer cannot have signed", { actorId });
      }
    }
  }

  #isNews(text: string): boolean {
    if (this.#counted.has(text)) return false;
    const [oldest] = this.#counted;
    if (this.#counted.size >= COUNTED_MAX && oldest !== undefined) this.#counted.delete(oldest);
    this.#counted.add(text);
    return true;
  }
}

/** Longer than the own hold: this edge tries again first, and says so if it stalls again. */
function noticeOf({ change, expiresMs }: HeldChange): OwnNotice {
  const expires = expiresMs + AFTER_HOLD_MS;
  return { change: changeHash(change), expires, keptUntilMs: expires };
}

function statementsOf(
  { nodeId, text, bouncedMs }: { nodeId: string; text: string; bouncedMs: number | null },
  nowMs: number,
): Statement[] {
  const now = BigInt(nowMs);
  const insert = "INSERT INTO edge_stalls (node_id) VALUES (?) ON CONFLICT (node_id) DO NOTHING";
  const bounced = BigInt(bouncedMs ?? 0);
  return [
    { sql: insert, params: [nodeId] },
    {
      sql:
        "UPDATE edge_stalls SET notices = ?, bounced_at = max(bounced_at, ?), updated_at = ?" +
        " WHERE node_id = ? AND (notices <> ? OR bounced_at < ?)",
      params: [text, bounced, now, nodeId, text, bounced],
    },
  ];
}

/** From the commit until the packets of an urgent broadcast have left. */
const SENDING_MS = 30;
/** A victim that tries again needs its stall budget, and its notice the way. */
const AFTER_HOLD_MS = 60_000;
/** The longest hold, see `Quarantine`. */
const DOUBLINGS = 16;
const COUNTED_MAX = 1_000;
/** A certificate is renewed days before it expires. */
const RENEWAL_PERIOD_MS = 60_000;
