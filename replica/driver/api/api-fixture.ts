/**
 * What the API's tests share: the real server over the real store, in a folder of its own, and HTTP
 * requests as a client sends them.
 */
import { join } from "node:path";
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { createLogger } from "#base/logger.ts";
import type { LocalCommit } from "../../types.ts";
import { QueryThread, type QueryThreadOptions } from "../query/query-thread.ts";
import { readSchemaFolder, type SchemaFile } from "../store/schema-files.ts";
import { StoreClient } from "../store/store-client.ts";
import { sqlDeadlinePath } from "../../../bin/setup/paths.js";
import { StoreFolder } from "../store/store-fixture.ts";
import { startStore, type StoreThread } from "../store/store-thread.ts";
import {
  SubscriptionThread,
  type SubscriptionThreadOptions,
} from "../subscriptions/subscription-thread.ts";
import { ApiServer, type ApiServerOptions } from "./api-server.ts";
import type { Health } from "./api-types.ts";
import { createStoreBackend } from "./store-backend.ts";

/** What a test may set. */
export interface ApiFixtureOptions {
  readonly server?: Partial<ApiServerOptions>;
  readonly queries?: Partial<QueryThreadOptions>;
  readonly subscriptions?: Partial<SubscriptionThreadOptions>;
  readonly health?: Health;
  readonly schemaFiles?: readonly SchemaFile[];
}

/** A request as it goes out; a body that is no text is sent as JSON. */
export interface ClientRequest {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** An answer, read whole. */
export interface ClientAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** An answer in JSON; null = without body. */
export interface JsonAnswer {
  readonly status: number;
  readonly body: Record<string, unknown> | null;
}

/** A running API. */
export class ApiFixture {
  readonly commits: LocalCommit[] = [];
  readonly logLines: string[] = [];
  readonly server: ApiServer;
  readonly queries: QueryThread;
  streams: SubscriptionThread;
  readonly store: StoreClient;
  readonly #folder: StoreFolder;
  readonly #thread: StoreThread;
  #port = 0;
  #host = "";

  private constructor(parts: {
    folder: StoreFolder;
    thread: StoreThread;
    store: StoreClient;
    queries: QueryThread;
    streams: SubscriptionThread;
    options: ApiFixtureOptions;
  }) {
    this.#folder = parts.folder;
    this.#thread = parts.thread;
    this.store = parts.store;
    this.queries = parts.queries;
    this.streams = parts.streams;
    let ticks = 0n;
    this.server = new ApiServer({
      addresses: [{ host: "127.0.0.1", port: 0 }],
      bearerToken: null,
      backend: createStoreBackend({
        store: parts.store,
        queries: parts.queries,
        streams: { open: (target) => this.streams.open(target) },
        health: () =>
          parts.options.health ?? { gaps: 0, members: 0, p99LagSeconds: null, queueSize: 0 },
        onCommit: (commit) => void this.commits.push(commit),
        stamp: () => BASE_STAMP + ticks++,
        status: () => ({ members: [] }),
      }),
      log: createLogger({
        level: "trace",
        write: (line) => void this.logLines.push(line),
        nowMs: () => 0,
      }),
      ...parts.options.server,
    });
  }

  /** The server's TCP port. */
  get port(): number {
    return this.#port;
  }

  /** Starts store, query thread and server. The replica's node is called `here`. */
  static async start(options: ApiFixtureOptions = {}): Promise<ApiFixture> {
    const folder = new StoreFolder();
    const storeOptions = folder.options("here", {
      schemaFiles:
        options.schemaFiles ?? readSchemaFolder(join(import.meta.dirname, "../../schema")),
    });
    const thread = await startStore(storeOptions);
    const store = await StoreClient.connect(thread.connect());
    const queries = await QueryThread.start({
      databasePath: storeOptions.path,
      extensionPath: storeOptions.extensionPath,
      deadlinePath: storeOptions.deadlinePath,
      ...options.queries,
    });
    const streams = await startStreams(folder, store, options.subscriptions ?? {});
    const fixture = new ApiFixture({ folder, thread, store, queries, streams, options });
    const [bound] = await fixture.server.listen();
    fixture.#host = bound?.address ?? "";
    fixture.#port = bound?.port ?? 0;
    return fixture;
  }

  /** Ends the thread of subscriptions in order and starts another. */
  async restartStreams(): Promise<void> {
    await this.streams.close();
    this.streams = await startStreams(this.#folder, this.store, {});
  }

  /** Opens a stream and reads its lines; anything but 200 throws. */
  async lines(request: ClientRequest): Promise<LineReader> {
    const headers = { "content-type": "application/json", ...request.headers };
    const answer = await this.open({ method: "POST", ...request, headers });
    if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
    return new LineReader(answer);
  }

  /** Sends a request; the answer's body is the caller's to read or to destroy. */
  open(request: ClientRequest): Promise<IncomingMessage> {
    const { method = "GET", path, headers = {}, body } = request;
    return new Promise((resolve, reject) => {
      const sent = httpRequest(
        { host: this.#host, port: this.#port, method, path, headers, agent: false },
        resolve,
      );
      sent.on("error", reject);
      sent.end(typeof body === "string" ? body : JSON.stringify(body));
    });
  }

  /** Sends a request and reads the answer. */
  async call(request: ClientRequest): Promise<ClientAnswer> {
    const answer = await this.open(request);
    let text = "";
    answer.setEncoding("utf8");
    for await (const part of answer) text += String(part);
    return { status: answer.statusCode ?? 0, headers: answer.headers, text };
  }

  /** Sends a value as JSON; the answer's body parsed. */
  async json(method: string, path: string, body?: unknown): Promise<JsonAnswer> {
    const headers = { "content-type": "application/json" };
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const { status, text } = await this.call({ method, path, headers, ...sent });
    return { status, body: text === "" ? null : (JSON.parse(text) as Record<string, unknown>) };
  }

  /** A query's lines, parsed, and the status. */
  async query(body: unknown): Promise<{ status: number; lines: unknown[] }> {
    const headers = { "content-type": "application/json" };
    const sent = { method: "POST", path: "/v1/queries", headers, body: JSON.stringify(body) };
    const { status, text } = await this.call(sent);
    return {
      status,
      lines: text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown),
    };
  }

  /** Ends everything and removes the folder. */
  async stop(): Promise<void> {
    await this.streams.close();
    await this.server.close();
    await this.queries.close();
    this.store.close();
    await this.#thread.close();
    this.#folder.remove();
  }
}

/** Reads an answer line by line as the lines arrive. */
export class LineReader {
  readonly answer: IncomingMessage;
  readonly #lines: AsyncGenerator<string>;

  constructor(answer: IncomingMessage) {
    this.answer = answer;
    this.#lines = linesOf(answer);
  }

  /** The next lines; fewer when the answer ends. */
  async take(count: number): Promise<string[]> {
    const lines: string[] = [];
    while (lines.length < count) {
      const next = await this.#lines.next();
      if (next.done === true) break;
      lines.push(next.value);
    }
    return lines;
  }

  /** Ends the connection. */
  close(): void {
    this.answer.destroy();
  }
}

async function* linesOf(answer: IncomingMessage): AsyncGenerator<string> {
  let rest = "";
  answer.setEncoding("utf8");
  for await (const part of answer) {
    const lines = (rest + String(part)).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

function startStreams(
  folder: StoreFolder,
  store: StoreClient,
  options: Partial<SubscriptionThreadOptions>,
): Promise<SubscriptionThread> {
  return SubscriptionThread.start({
    databasePath: folder.options("here").path,
    deadlinePath: sqlDeadlinePath(),
    folder: join(folder.path, "subscriptions"),
    watchCommits: () => store.watchCommits(),
    onNotice: () => undefined,
    ...options,
  });
}

/** 2025-06-15, in NTP64. */
const BASE_STAMP = 0x684ee18000000000n;
