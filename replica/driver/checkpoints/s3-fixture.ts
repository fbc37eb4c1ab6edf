/**
 * A real S3 server for tests and benchmarks: it keeps objects in files and checks signatures. On
 * demand it answers an object only to a half, or falls silent there.
 */
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { createServer, type RequestListener, type Server, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { checkpointsSection, type CheckpointsConfig } from "../../config.ts";

/** What becomes of the second half of each object that is read. */
export type S3Fault = "cut" | "silence" | null;

/** A server with one empty bucket, `bucket`. */
export class S3Fixture {
  fault: S3Fault = null;
  /** Objects that were asked for. */
  reads = 0;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Starts on a port of the system's; objects go to the folder. */
  static async start(folder: string): Promise<S3Fixture> {
    mkdirSync(folder, { recursive: true });
    const options = {
      directory: folder,
      silent: true,
      vhostBuckets: false,
      configureBuckets: [{ name: "bucket", configs: [] }],
    } as const;
    const app = new S3rver(options);
    await app.configureBuckets();
    const answer = app.callback();
    // It signs a bucket's path without the slash that clients send: of listings, the key's id counts.
    const answerListing = new S3rver({ ...options, allowMismatchedSignatures: true }).callback();
    const server = createServer((request, response) => {
      if (request.url?.includes("list-type") === true) return answerListing(request, response);
      if (request.method === "GET") {
        fixture.reads += 1;
        fixture.#spoil(response);
      }
      answer(request, response);
    });
    const fixture = new S3Fixture(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return fixture;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** `[checkpoints]` with this store's address and key. */
  config(changes: Readonly<Record<string, unknown>> = {}): CheckpointsConfig {
    return checkpointsSection.parse({ s3: this.section, ...changes });
  }

  /** `[checkpoints.s3]`. */
  get section(): Readonly<Record<string, string>> {
    return { endpoint: this.endpoint, access_key_id: "S3RVER", secret_access_key: "S3RVER" };
  }

  async close(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #spoil(response: ServerResponse): void {
    const { fault } = this;
    if (fault === null) return;
    const write = response.write.bind(response) as (chunk: Buffer) => boolean;
    response.write = (chunk: Buffer): boolean => {
      write(chunk.subarray(0, chunk.length / 2));
      if (fault === "cut") setImmediate(() => response.destroy());
      // And nothing more, nor an end.
      response.write = () => true;
      response.end = () => response;
      return true;
    };
  }
}

interface S3App {
  configureBuckets(): Promise<unknown>;
  callback(): RequestListener;
}

const S3rver = createRequire(import.meta.url)("@20minutes/s3rver") as new (options: {
  readonly directory: string;
  readonly silent: boolean;
  readonly vhostBuckets: boolean;
  readonly allowMismatchedSignatures?: boolean;
  readonly configureBuckets: readonly { readonly name: string; readonly configs: readonly [] }[];
}) => S3App;
