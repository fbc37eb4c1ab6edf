/**
 * Sync sessions on real streams: frames to messages and back, for the machines of both roles.
 *
 * A session id stands for a stream; what a stream does after its session was given up is ignored.
 * Answers are compressed and decompressed here, because zstd belongs to the runtime: those to a
 * client that takes such, if this replica compresses at all.
 */
import { assert } from "#base/errors.ts";
import { failure, success, type Result } from "#base/machine.ts";
import type { SyncClientInput, SyncClientOutput } from "../../core/sync/client-types.ts";
import type { SessionMessage } from "../../core/sync/messages.ts";
import type { SyncServerInput, SyncServerOutput } from "../../core/sync/sync-server.ts";
import {
  decodeSyncMessage,
  decodeSyncStart,
  encodeSyncChangeset,
  encodeSyncCompressed,
  encodeSyncMessage,
  encodeSyncStart,
} from "../../core/wire/sync-messages.ts";
import type { BiStream, Changeset, Transport } from "../../types.ts";
import type { Zstd } from "../compression/zstd.ts";

/** Effects of a sync client that concern streams. */
export type ClientStreamOutput = Extract<
  SyncClientOutput,
  { kind: "open" | "send" | "finish" | "abort" | "reading" }
>;

/** Effects of a sync server that concern streams. */
export type ServerStreamOutput = Extract<SyncServerOutput, { kind: "send" | "finish" | "abort" }>;

/** Plain counters since the start, of both roles. */
export interface SyncStreamStats {
  /** Frames that were no valid message. */
  badFrames: number;
  /** Bytes of frames that streams took, with their lengths. */
  sentBytes: number;
  /** Bytes of frames received. */
  receivedBytes: number;
}

/** Where what streams say goes. */
export interface SyncStreamEvents {
  client(input: SyncClientInput): void;
  server(input: SyncServerInput): void;
}

/** A client session's stream, and which directions have ended. */
interface ClientStream {
  readonly stream: BiStream;
  hasFinished: boolean;
  hasPeerFinished: boolean;
}

/** All sync streams of one replica. */
export class SyncStreams {
  readonly stats: SyncStreamStats = { badFrames: 0, sentBytes: 0, receivedBytes: 0 };
  readonly #transport: Transport;
  readonly #events: SyncStreamEvents;
  readonly #clientStreams = new Map<number, ClientStream>();
  readonly #serverStreams = new Map<number, BiStream>();
  /** Server sessions whose client takes compressed answers. */
  readonly #compressing = new Set<number>();
  readonly #zstd: Zstd;
  /** Client sessions whose stream is being opened. */
  readonly #opening = new Map<number, "wanted" | "givenUp">();
  #nextServerSession = 1;
  /** Set while the client's machine wants no more frames; resolves when it does again. */
  #pause: { readonly over: Promise<void>; readonly end: () => void } | null = null;

  /** With a `zstd` that is not enabled nothing is compressed, nor asked to be. */
  constructor(transport: Transport, events: SyncStreamEvents, zstd: Zstd) {
    this.#transport = transport;
    this.#zstd = zstd;
    this.#events = events;
  }

  /** Streams that are open, both roles. */
  get openCount(): number {
    return this.#clientStreams.size + this.#serverStreams.size;
  }

  /** Takes a stream that a peer opened. */
  accept(stream: BiStream): void {
    const sessionId = this.#nextServerSession++;
    this.#serverStreams.set(sessionId, stream);
    let isFirst = true;
    stream.onBroken(() => this.#endServer(sessionId, "broken"));
    stream.onFrame((frame) => {
      if (!this.#serverStreams.has(sessionId)) return;
      if (frame === null) return this.#events.server({ kind: "finished", sessionId });
      this.stats.receivedBytes += frame.length;
      const message = isFirst ? readStart(frame, stream) : this.#readMessage(frame);
      isFirst = false;
      if (!message.ok) {
        this.stats.badFrames++;
        stream.abort();
        return this.#endServer(sessionId, "broken");
      }
      const { value } = message;
      const isCompressing = value.kind === "start" && value.supportsCompression;
      if (isCompressing && this.#zstd.isEnabled) this.#compressing.add(sessionId);
      this.#events.server({ kind: "message", sessionId, message: value });
    });
    this.#events.server({ kind: "accepted", sessionId });
  }

  /** Performs an effect of the client. */
  performClient(output: ClientStreamOutput): void {
    switch (output.kind) {
      case "open":
        void this.#open(output.sessionId, output.peer.address);
        return;
      case "send":
        for (const frame of framesOf(this.#withTerms(output.message))) {
          this.#send(this.#clientStreams.get(output.sessionId)?.stream, frame);
        }
        return;
      case "finish":
        return this.#finishClient(output.sessionId);
      case "abort": {
        const { sessionId } = output;
        if (this.#opening.has(sessionId)) this.#opening.set(sessionId, "givenUp");
        this.#clientStreams.get(sessionId)?.stream.abort();
        this.#clientStreams.delete(sessionId);
        return;
      }
      case "reading":
        return this.#setPaused(output.isPaused);
    }
  }

  /** Performs an effect of the server. */
  performServer(output: ServerStreamOutput): void {
    const stream = this.#serverStreams.get(output.sessionId);
    switch (output.kind) {
      case "send":
        if (output.message.kind === "changesets")
          void this.#sendChangesets(output.sessionId, output);
        else for (const frame of framesOf(output.message)) this.#send(stream, frame);
        return;
      case "finish":
        this.#forgetServer(output.sessionId);
        stream?.finish();
        return;
      case "abort":
        this.#forgetServer(output.sessionId);
        stream?.abort();
        return;
    }
  }

  /** The start of a session says whether we take compressed answers. */
  #withTerms(message: SessionMessage): SessionMessage {
    if (message.kind !== "start" || !this.#zstd.isEnabled) return message;
    return { ...message, supportsCompression: true };
  }

  async #open(sessionId: number, address: string): Promise<void> {
    this.#opening.set(sessionId, "wanted");
    let stream: BiStream;
    try {
      stream = await this.#transport.openBi(address);
    } catch (error) {
      this.#opening.delete(sessionId);
      // Why is in the transport's own log and counters; here a server less is all it means.
      if (error instanceof Error) return this.#events.client({ kind: "openFailed", sessionId });
      throw error;
    }
    const isWanted = this.#opening.get(sessionId) === "wanted";
    this.#opening.delete(sessionId);
    if (!isWanted) return stream.abort();
    const entry = { stream, hasFinished: false, hasPeerFinished: false };
    this.#clientStreams.set(sessionId, entry);
    stream.onBroken(() => {
      if (!this.#clientStreams.delete(sessionId)) return;
      this.#events.client({ kind: "broken", sessionId });
    });
    stream.onFrame((frame) => this.#onClientFrame(sessionId, entry, frame));
    this.#events.client({ kind: "opened", sessionId });
  }

  #finishClient(sessionId: number): void {
    const entry = this.#clientStreams.get(sessionId);
    if (!entry) return;
    entry.hasFinished = true;
    entry.stream.finish();
    if (entry.hasPeerFinished) this.#clientStreams.delete(sessionId);
  }

  #onClientFrame(
    sessionId: number,
    entry: ClientStream,
    frame: Uint8Array | null,
  ): void | Promise<void> {
    if (this.#clientStreams.get(sessionId) !== entry) return;
    if (frame === null) {
      entry.hasPeerFinished = true;
      if (entry.hasFinished) this.#clientStreams.delete(sessionId);
      return this.#events.client({ kind: "finished", sessionId });
    }
    this.stats.receivedBytes += frame.length;
    const message = this.#readMessage(frame);
    if (!message.ok) {
      this.stats.badFrames++;
      this.#clientStreams.delete(sessionId);
      entry.stream.abort();
      return this.#events.client({ kind: "broken", sessionId });
    }
    this.#events.client({ kind: "message", sessionId, message: message.value });
    return this.#pause?.over;
  }

  #setPaused(isPaused: boolean): void {
    if (!isPaused) {
      this.#pause?.end();
      this.#pause = null;
      return;
    }
    if (this.#pause) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#pause = { over: promise, end: resolve };
  }

  #send(stream: BiStream | undefined, frame: Uint8Array): void {
    // A stream that breaks says so through `onBroken`; that is where the session ends.
    if (stream !== undefined) this.#write(stream, frame).catch(ignoreBroken);
  }

  async #write(stream: BiStream, frame: Uint8Array): Promise<void> {
    await stream.send(frame);
    this.stats.sentBytes += frame.length + PREFIX_BYTES;
  }

  async #sendChangesets(
    sessionId: number,
    output: Extract<ServerStreamOutput, { kind: "send" }>,
  ): Promise<void> {
    const stream = this.#serverStreams.get(sessionId);
    if (!stream || output.message.kind !== "changesets") return;
    const isCompressing = this.#compressing.has(sessionId);
    const frames = output.message.changesets.map((changeset) =>
      isCompressing ? this.#encodeCompressed(changeset) : encodeSyncChangeset(changeset),
    );
    const startedMs = performance.now();
    try {
      await Promise.all(frames.map((frame) => this.#write(stream, frame)));
    } catch (error) {
      return ignoreBroken(error);
    }
    const tookMs = performance.now() - startedMs;
    this.#events.server({ kind: "sent", sessionId, frames: frames.length, tookMs });
  }

  #encodeCompressed(changeset: Changeset): Uint8Array {
    const compressed = changeset.kind === "full" ? this.#zstd.compressChange(changeset) : null;
    return compressed ? encodeSyncCompressed(compressed) : encodeSyncChangeset(changeset);
  }

  #readMessage(frame: Uint8Array): Result<SessionMessage, string> {
    const message = decodeSyncMessage(frame, true);
    if (!message.ok) return message;
    if (message.value.kind !== "compressedChangeset") return success(message.value);
    return this.#zstd.decompressAnswer(message.value.compressed);
  }

  #endServer(sessionId: number, kind: "broken"): void {
    if (this.#forgetServer(sessionId)) this.#events.server({ kind, sessionId });
  }

  #forgetServer(sessionId: number): boolean {
    this.#compressing.delete(sessionId);
    return this.#serverStreams.delete(sessionId);
  }
}

function framesOf(message: SessionMessage): Uint8Array[] {
  if (message.kind === "start") return [encodeSyncStart(message)];
  if (message.kind === "changesets") return message.changesets.map(encodeSyncChangeset);
  assert(message.kind !== "unreadable", "a change that could not be read is not passed on");
  return [encodeSyncMessage(message)];
}

/** Who begins a session is who its certificate says, where certificates tell. */
function readStart(
  frame: Uint8Array,
  { peerActorId = null }: BiStream,
): Result<SessionMessage, string> {
  const start = decodeSyncStart(frame);
  if (!start.ok) return start;
  if (peerActorId !== null && start.value.actorId !== peerActorId) {
    return failure(`${start.value.actorId} with the certificate of ${peerActorId}`);
  }
  return success({ kind: "start", ...start.value });
}

function ignoreBroken(error: unknown): void {
  if (!(error instanceof Error)) throw error;
}

/** Length in front of a frame. */
const PREFIX_BYTES = 4;
