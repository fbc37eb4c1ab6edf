/**
 * Tells other edges of changes that stalled this one, and hears what stalled them. It runs in the
 * replica's thread, which goes on while a data plane is stuck.
 *
 * The row of this node in `edge_stalls` holds its notices, newest first. It is written before the
 * watchdog kills the process, as an urgent change, and again after the next start where there was
 * no time for it (a crash by an exception).
 */
import type { MessagePort } from "node:worker_threads";
import { errorText } from "#base/errors.ts";
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
  readNotices,
  signEntry,
  writeNotices,
  type SignedEntry,
} from "../stall-notice.ts";
import type { NoticeNews } from "./messages.ts";

/** What a desk needs. */
export interface NoticeDeskOptions {
  readonly replica: Pick<Replica, "actorId" | "publish" | "changes">;
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

/** One per edge process. */
export class NoticeDesk {
  readonly #options: NoticeDeskOptions;
  readonly #build = readBuildId();
  readonly #certificates: TransportCertificates;
  #own: readonly SignedEntry[] = [];
  #port: MessagePort | null = null;
  #changes: ReturnType<Replica["changes"]> | null = null;
  /** Already counted: a row comes whole with each of its changes. */
  readonly #counted = new Set<string>();

  private constructor(options: NoticeDeskOptions, certificates: TransportCertificates) {
    this.#options = options;
    this.#certificates = certificates;
  }

  /** Rejects with `CERTIFICATE_UNREADABLE`. */
  static async open(options: NoticeDeskOptions): Promise<NoticeDesk> {
    return new NoticeDesk(options, await transportCertificates(options.config.gossip, Date.now()));
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
    const entries = changes.filter(({ change, expiresMs }) => {
      const hash = changeHash(change);
      return !this.#own.some((one) => one.change === hash && one.expires >= expiresMs);
    });
    await this.#publish(entries, bouncedMs);
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
    await this.#publish(held, action === "bounce" ? nowMs : null);
  }

  /** A failure costs the others' warning, and nothing else. */
  async #publish(all: readonly HeldChange[], bouncedMs: number | null): Promise<void> {
    const { replica, config, log, metrics } = this.#options;
    const held = config.watchdog.notice_ms === 0 ? [] : all;
    if (held.length === 0 && bouncedMs === null) return;
    try {
      const entries = this.#entriesWith(held);
      const { certificatePem } = this.#certificates.server;
      const text = entries.length === 0 ? "" : writeNotices(certificatePem, entries);
      const row = { nodeId: config.replica.node, text, bouncedMs };
      if (!(await replica.publish(statementsOf(row, Date.now())))) return;
      this.#own = entries;
      metrics.counter("patina_quarantine_notices_total", { result: "sent" }).add(held.length);
    } catch (error) {
      log.warn?.("notice-not-sent", `others are not warned: ${errorText(error)}`);
    }
  }

  #entriesWith(held: readonly HeldChange[]): readonly SignedEntry[] {
    const { actorId } = this.#options.replica;
    const { keyPem } = this.#certificates.server;
    const added = held.map(({ change, expiresMs }) => {
      // Longer than the own hold: this edge tries again first, and says so if it stalls again.
      const entry = { change: changeHash(change), build: this.#build, actor: actorId };
      return signEntry({ ...entry, expires: expiresMs + AFTER_HOLD_MS }, keyPem);
    });
    const kept = this.#own.filter(
      (one) => one.expires > Date.now() && !added.some(({ change }) => change === one.change),
    );
    return [...added, ...kept];
  }

  #onRow({ row, actorId, version }: RowChange): void {
    const { replica, config, onNotice, metrics, log, bounces } = this.#options;
    if (row === null || actorId === replica.actorId) return;
    // By who wrote it: nobody speaks for two.
    bounces.note(actorId, { bouncedMs: Number(row["bounced_at"]), nowMs: Date.now() });
    const text = typeof row["notices"] === "string" ? row["notices"] : "";
    const rules = {
      authoritiesPem: this.#certificates.authoritiesPem,
      writer: actorId,
      build: this.#build,
      nowMs: Date.now(),
      validMs: config.watchdog.quarantine_ms * DOUBLINGS + AFTER_HOLD_MS,
    };
    for (const [at, notice] of readNotices(text, rules).entries()) {
      const what = notice.ok
        ? `${notice.value.change} ${notice.value.expires}`
        : `${notice.error} ${version} ${at}`;
      if (!this.#isNews(`${actorId} ${what}`)) continue;
      const result = notice.ok ? "taken" : notice.error;
      metrics.counter("patina_quarantine_notices_total", { result }).add(1);
      if (notice.ok) {
        const { change: hash, expires: expiresMs } = notice.value;
        log.warn?.("notice-taken", "a change stalled another edge", { actorId, hash });
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
