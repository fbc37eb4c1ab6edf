/**
 * Checkpoints in an S3-compatible store: AWS's own client, told to leave out what only AWS's store
 * understands.
 *
 * Credentials and region come from the config, else from where AWS's tools take them: `AWS_*` in the
 * environment, profiles, the role of the machine. A store that falls silent is given up, so that
 * nobody waits for ever; a request that can be repeated is, twice.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { Readable } from "node:stream";
import {
  DeleteObjectCommand,
  GetObjectCommand,
  paginateListObjectsV2,
  PutObjectCommand,
  S3Client,
  type S3ClientConfig,
} from "@aws-sdk/client-s3";
import { errorText, PatinaError } from "#base/errors.ts";
import type { CheckpointsConfig } from "../../config.ts";
import type { CheckpointBytes } from "./checkpoint-file.ts";
import {
  newestFirst,
  parseName,
  type CheckpointTarget,
  type KeptCheckpoint,
  type TargetPlace,
} from "./checkpoint-target.ts";
import { checkpointError } from "./errors.ts";

/** The place that `s3://bucket/prefix` or `s3://bucket/prefix/NAME.db.zst` says. Throws `USAGE`. */
export function openS3(text: string, config: CheckpointsConfig): TargetPlace {
  const found = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(text);
  if (found === null) {
    throw new PatinaError("USAGE", `${text}: not an address of the form s3://bucket/prefix`);
  }
  const [, bucket = "", rest = ""] = found;
  const parts = rest.split("/").filter((one) => one !== "");
  const last = parts.at(-1) ?? "";
  const name = parseName(last, 0) === null ? null : last;
  if (name !== null) parts.pop();
  const prefix = parts.map((one) => `${one}/`).join("");
  return { target: new S3Target({ bucket, prefix, config }), name };
}

class S3Target implements CheckpointTarget {
  readonly text: string;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #client: S3Client;
  readonly #silenceMs: number;

  constructor(options: {
    readonly bucket: string;
    readonly prefix: string;
    readonly config: CheckpointsConfig;
  }) {
    const { bucket, prefix, config } = options;
    this.text = `s3://${bucket}/${prefix}`;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#silenceMs = config.timeout_secs * 1000;
    this.#client = new S3Client(clientConfig(config));
  }

  async list(): Promise<KeptCheckpoint[]> {
    const found: (KeptCheckpoint | null)[] = [];
    await this.#try("", async () => {
      const input = { Bucket: this.#bucket, Prefix: this.#prefix, Delimiter: "/" };
      for await (const page of paginateListObjectsV2({ client: this.#client }, input)) {
        for (const { Key, Size } of page.Contents ?? []) {
          found.push(parseName((Key ?? "").slice(this.#prefix.length), Size ?? 0));
        }
      }
    });
    return newestFirst(found);
  }

  async put(file: string, name: string): Promise<void> {
    const { size } = await stat(file);
    if (size > PUT_BYTES_MAX) {
      const text = `${this.text}${name} has ${size} bytes; a store takes ${PUT_BYTES_MAX} in one piece`;
      throw checkpointError("CHECKPOINT_STORE", text);
    }
    await this.#try(name, () =>
      this.#client.send(
        new PutObjectCommand({
          Bucket: this.#bucket,
          Key: this.#prefix + name,
          Body: createReadStream(file),
          ContentLength: size,
        }),
      ),
    );
  }

  async *read(name: string): CheckpointBytes {
    const input = { Bucket: this.#bucket, Key: this.#prefix + name };
    const answer = await this.#try(name, () => this.#client.send(new GetObjectCommand(input)));
    const body = answer.Body as Readable;
    const listen = (): NodeJS.Timeout => setTimeout(() => body.destroy(TOO_SLOW), this.#silenceMs);
    let silence = listen();
    try {
      for await (const chunk of body) {
        // The reader may take its time.
        clearTimeout(silence);
        yield chunk as Uint8Array;
        silence = listen();
      }
    } catch (error) {
      throw this.#error(name, error);
    } finally {
      clearTimeout(silence);
      body.destroy();
    }
  }

  async remove(name: string): Promise<void> {
    const input = { Bucket: this.#bucket, Key: this.#prefix + name };
    await this.#try(name, () => this.#client.send(new DeleteObjectCommand(input)));
  }

  close(): void {
    this.#client.destroy();
  }

  async #try<Value>(name: string, work: () => Promise<Value>): Promise<Value> {
    try {
      return await work();
    } catch (error) {
      throw this.#error(name, error);
    }
  }

  #error(name: string, error: unknown): PatinaError {
    const { $metadata, name: kind = "" } = error as {
      readonly $metadata?: { readonly httpStatusCode?: number };
      readonly name?: string;
    };
    const status = $metadata?.httpStatusCode;
    const said = status === undefined ? "" : `${status} ${kind}: `;
    const what =
      kind === "TimeoutError"
        ? `nothing came for ${this.#silenceMs / 1000} s (checkpoints.timeout_secs)`
        : errorText(error);
    const text = `${this.text}${name}: ${said}${what}`;
    if (kind === "NoSuchKey" || kind === "NoSuchBucket") {
      return checkpointError("CHECKPOINT_NONE", text, error);
    }
    if (status === 401 || status === 403 || kind === "CredentialsProviderError") {
      return checkpointError("CHECKPOINT_DENIED", `${text}; ${CREDENTIALS_HINT}`, error);
    }
    return checkpointError("CHECKPOINT_STORE", text, error);
  }
}

function clientConfig({ s3, timeout_secs }: CheckpointsConfig): S3ClientConfig {
  const { endpoint, region, access_key_id, secret_access_key, session_token, path_style } = s3;
  const { AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_DEFAULT_REGION } = process.env;
  const isElsewhere = (endpoint ?? AWS_ENDPOINT_URL_S3 ?? AWS_ENDPOINT_URL) !== undefined;
  const socketTimeout = timeout_secs * 1000;
  return {
    region: region ?? AWS_REGION ?? AWS_DEFAULT_REGION ?? "us-east-1",
    // Few stores but AWS's give each bucket a name of its own in DNS.
    forcePathStyle: path_style ?? isElsewhere,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(access_key_id === undefined || secret_access_key === undefined
      ? {}
      : {
          credentials: {
            accessKeyId: access_key_id,
            secretAccessKey: secret_access_key,
            ...(session_token === undefined ? {} : { sessionToken: session_token }),
          },
        }),
    requestHandler: {
      connectionTimeout: Math.min(socketTimeout, CONNECT_MS),
      socketTimeout,
    },
    maxAttempts: 3,
    // What it remarks on standard error comes as an error, too.
    logger: { debug: ignore, info: ignore, warn: ignore, error: ignore },
    // The checkpoint has sums of its own, and older stores refuse those that AWS's adds.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
  };
}

/** Named as the client's own. */
const TOO_SLOW = Object.assign(new Error("the store is silent"), { name: "TimeoutError" });
const ignore = (): void => undefined;
const CREDENTIALS_HINT =
  "the key in [checkpoints.s3] or AWS_ACCESS_KEY_ID needs to list the bucket, and to get, put and" +
  " delete objects below the prefix";
/** AWS's limit of one upload. */
const PUT_BYTES_MAX = 5 * 1024 ** 3;
const CONNECT_MS = 10_000;
