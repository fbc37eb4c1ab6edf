/**
 * What the requests of the admin socket do: each is a few lines over the replica's machine and the
 * store. Whatever the store has to do goes through its client, so that it takes its turn there.
 */
import { errorText, type PatinaError } from "#base/errors.ts";
import type { ReplicaCore } from "../../core/replica-core.ts";
import { missingSeqs } from "../../core/bookkeeping/bookkeeping.ts";
import type { FullChangeset } from "../../types.ts";
import type { ReplicaDriver } from "../replica-driver.ts";
import { schemaChangeText } from "../store/schema-apply.ts";
import type { SchemaFile } from "../store/schema-files.ts";
import type { StoreClient } from "../store/store-client.ts";
import type { SubscriptionThread } from "../subscriptions/subscription-thread.ts";
import type { AdminRequest, QuarantineQuestion } from "./admin-messages.ts";
import type { AdminNote } from "./admin-server.ts";
import {
  listedSubscription,
  memberView,
  membershipStateView,
  subscriptionView,
  syncStateView,
  treeView,
  versionView,
} from "./admin-views.ts";
import { adminError } from "./errors.ts";

/** What is asked of an edge's routing table. */
export type EdgeQuestion =
  | { readonly kind: "routes"; readonly limit: number }
  | { readonly kind: "explain"; readonly host: string }
  /** What is kept out of the table; the answer's `problem` says that there is no such `id`. */
  | QuarantineQuestion;

/** What a replica needs from the rest of its process for some requests. */
export interface AdminSurroundings {
  /** Levels of the log of every thread. `set` throws `ADMIN_REFUSED` when the filter is no level. */
  readonly log: { set(filter: string): void; reset(): void };
  /** The routing table's answer, plain data; null = not an edge. Rejects when none comes in time. */
  readonly edge: ((question: EdgeQuestion) => Promise<unknown>) | null;
  /** Reads the schema files anew. */
  readonly readSchema: () => readonly SchemaFile[];
}

/** What the requests work on. */
export interface AdminContext extends AdminSurroundings {
  readonly subscriptions: Pick<SubscriptionThread, "views">;
  readonly core: ReplicaCore;
  readonly driver: ReplicaDriver;
  readonly store: StoreClient;
  /** Members, heads and needs, as the HTTP API has it. */
  readonly status: () => unknown;
  /** A stamp of the hybrid clock, for a transaction of our own. */
  readonly stamp: () => bigint;
}

/** Carries out one request. Throws `ADMIN_REFUSED`, or an error of the store. */
export async function* performAdmin(
  context: AdminContext,
  request: AdminRequest,
): AsyncGenerator<AdminNote, void> {
  const { core, driver, log } = context;
  switch (request.kind) {
    case "ping":
      return;
    case "status":
      yield json(await statusOf(context));
      return;
    case "syncGenerate":
      yield note("generating sync state");
      yield json(syncStateView(core.books, core.swim.self.id));
      return;
    case "members":
      for (const member of core.swim.members) yield json(memberView(member, core.rings));
      return;
    case "membershipStates":
      for (const member of core.swim.records) yield json(membershipStateView(member));
      return;
    case "rejoin":
      driver.run({ kind: "rejoin" });
      yield note("rejoined the cluster with a renewed identity");
      return;
    case "setClusterId":
      yield* setClusterId(context, request.clusterId);
      return;
    case "actorVersion":
      if (core.books.head(request.actorId) === 0) {
        throw refusal(`unknown actor id: ${request.actorId}`);
      }
      yield json(versionView(core.books, request));
      return;
    case "processBufferedChanges":
      yield* processBuffered(context, request);
      return;
    case "reconcileGaps":
      yield* reconcileGaps(context);
      return;
    case "checkBookieConsistency":
      yield* checkBooks(context);
      return;
    case "reload":
      yield note(await reloadSchema(context));
      return;
    case "schemaApply":
      yield note(await reloadSchema({ ...context, readSchema: () => request.files }));
      return;
    case "reloadDicts":
      yield* reloadDictionaries(context);
      return;
    case "logSet":
      log.set(request.filter);
      yield note(`log level set to ${request.filter}`);
      return;
    case "logReset":
      log.reset();
      yield note("log level as configured");
      return;
    case "subsList":
    case "subsInfo":
      yield json(await subscriptionsOf(context, request));
      return;
    case "plumtreeStats":
      yield json(treeView(core.broadcast));
      return;
    case "edgeRoutes":
    case "edgeExplain":
    case "quarantine":
      yield json(await askEdge(context, request));
  }
}

/** With what its edge keeps out of the table; one that is stuck has a `problem` there. */
async function statusOf({ status, store, edge }: AdminContext): Promise<unknown> {
  const question = { kind: "quarantine", action: "list", id: "" } as const;
  const quarantine = await edge?.(question).catch((error: unknown) => ({
    problem: errorText(error),
  }));
  return { ...(status() as object), store: await store.stats(), quarantine: quarantine ?? null };
}

function* reloadDictionaries({ driver }: AdminContext): Generator<AdminNote> {
  const { loaded, problems } = driver.zstd.reload();
  for (const problem of problems) yield note(problem);
  yield note(`compression dictionaries loaded: ${loaded}`);
}

async function* setClusterId(context: AdminContext, clusterId: number): AsyncGenerator<AdminNote> {
  yield note(`setting new cluster id: ${clusterId}`);
  await context.store.saveClusterId(clusterId);
  context.driver.run({ kind: "changeCluster", clusterId });
}

/** Merges what is buffered of a version whose seqs are all there, as its last message would have. */
async function* processBuffered(
  context: AdminContext,
  place: { readonly actorId: string; readonly version: number },
): AsyncGenerator<AdminNote> {
  const { core, store, driver } = context;
  const { actorId, version } = place;
  const partial = core.books.partial(actorId, version);
  if (partial === undefined) throw refusal(`nothing is buffered of version ${version}`);
  const missing = missingSeqs(partial);
  if (missing.length > 0) {
    const ranges = missing.map(({ start, end }) => `${start}-${end}`).join(", ");
    throw refusal(`version ${version} still lacks seqs ${ranges}; sync brings them`);
  }
  const { lastSeq, ts } = partial;
  // Says again that the first seq arrived: whole already, so that the store merges its buffer.
  const seqs = { start: 0, end: 0 };
  const again: FullChangeset = { kind: "full", actorId, version, changes: [], seqs, lastSeq, ts };
  const [outcome] = await store.apply([again]);
  if (outcome === undefined || outcome.kind === "refused") {
    throw refusal(`version ${version} cannot be merged: ${outcome?.reason ?? "no outcome"}`);
  }
  core.books.follow(outcome);
  driver.run({ kind: "tick" });
  const rows = outcome.kind === "applied" ? outcome.rowsChanged : 0;
  yield note(`processed version ${version} of ${actorId}: rows changed: ${rows}`);
}

async function* reconcileGaps(context: AdminContext): AsyncGenerator<AdminNote> {
  const { core, store, driver } = context;
  yield note("reconciling gaps between memory, stored books and rows");
  const { repairs, books } = await store.repairBooks();
  for (const { actorId, gapsDeleted, gapsInserted, bufferedDropped } of repairs) {
    const dropped = bufferedDropped > 0 ? `, buffered versions dropped: ${bufferedDropped}` : "";
    yield note(
      `reconciled ${actorId} (deleted: ${gapsDeleted}, inserted: ${gapsInserted}${dropped})`,
    );
  }
  core.books.load(books);
  driver.run({ kind: "tick" });
}

async function* checkBooks(context: AdminContext): AsyncGenerator<AdminNote> {
  const { store } = context;
  yield note("checking the books in memory against those stored, and both against the rows");
  const report = await store.checkBooks();
  const findings = [...report.findings];
  for (let after = report.firstSlice; after !== null;) {
    const slice = await store.checkRows(after);
    findings.push(...slice.findings.slice(0, FINDINGS_MAX - findings.length));
    after = slice.next;
  }
  const { mismatched, onlyInMemory, onlyInDatabase } = report;
  const bad = [mismatched, onlyInMemory, onlyInDatabase, findings].map((list) => list.length);
  const ok = bad.every((count) => count === 0);
  yield json({
    ok,
    in_memory_actors: report.inMemoryActors,
    db_actors: report.databaseActors,
    value_mismatch_actors: mismatched,
    only_in_memory_actors: onlyInMemory,
    only_in_db_actors: onlyInDatabase,
    findings,
  });
  if (ok) return;
  const [values, memory, database, rows] = bad;
  throw refusal(
    `bookie mismatch: value_mismatch=${values}, only_in_memory=${memory},` +
      ` only_in_db=${database}, findings=${rows}; patina sync reconcile-gaps mends the books`,
  );
}

/** Applies the schema files anew, all or nothing; says what was changed. Throws `STORE_SCHEMA`. */
export async function reloadSchema(
  context: Pick<AdminContext, "core" | "store" | "driver" | "readSchema" | "stamp">,
): Promise<string> {
  const { core, store, driver } = context;
  const files = context.readSchema();
  const { change, commit, books } = await store.applySchema(files, context.stamp());
  if (commit !== null) driver.committed(commit);
  if (books !== null) {
    core.books.load(books);
    driver.run({ kind: "tick" });
  }
  return schemaChangeText(files.length, change);
}

async function subscriptionsOf(
  context: AdminContext,
  request: Extract<AdminRequest, { kind: "subsList" | "subsInfo" }>,
): Promise<unknown> {
  const { subscriptions } = context;
  if (request.kind === "subsList") {
    const all = await subscriptions.views({ hash: null, id: null });
    return all.map(listedSubscription);
  }
  const { hash, id } = request;
  if (hash === null && id === null) throw refusal("specify hash or id for subscription");
  const [found] = await subscriptions.views({ hash, id });
  if (found === undefined) throw refusal("unknown subscription hash or id");
  return subscriptionView(found);
}

function askEdge(
  context: AdminContext,
  request: Extract<AdminRequest, { kind: "edgeRoutes" | "edgeExplain" | "quarantine" }>,
): Promise<unknown> {
  if (context.edge === null) throw refusal("this replica is an agent: it routes nothing");
  if (request.kind === "quarantine") return context.edge(request);
  return request.kind === "edgeRoutes"
    ? context.edge({ kind: "routes", limit: request.limit })
    : context.edge({ kind: "explain", host: request.host });
}

function json(value: unknown): AdminNote {
  return { kind: "json", value };
}

function note(msg: string): AdminNote {
  return { kind: "log", msg };
}

function refusal(text: string): PatinaError {
  return adminError("ADMIN_REFUSED", text);
}

/** Of a consistency check: enough to see what kind of damage it is. */
const FINDINGS_MAX = 200;
