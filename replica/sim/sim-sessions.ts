/**
 * The sync sessions of a simulated replica: streams of both roles, and which message goes on which.
 *
 * Lives as long as its replica does. A client that is told not to read holds all of its streams; a
 * server hears that a frame was sent when the stream has room for more.
 */
import type { SwimPacket } from "../core/swim/packet.ts";
import type { SyncClientInput, SyncClientOutput } from "../core/sync/client-types.ts";
import type { SessionMessage } from "../core/sync/messages.ts";
import type { SyncServerInput, SyncServerOutput } from "../core/sync/sync-server.ts";
import type { Address } from "../types.ts";
import type { EventQueue } from "./event-queue.ts";
import { recodeMessage } from "./sim-codec.ts";
import type { SimNetwork } from "./sim-network.ts";
import type { StreamEnd } from "./sim-stream.ts";

/** What sessions are made of. */
export interface SimSessionsOptions {
  readonly address: Address;
  readonly network: SimNetwork<SwimPacket, SessionMessage>;
  readonly queue: EventQueue;
  readonly isEncoding: boolean;
  readonly client: (input: SyncClientInput) => void;
  readonly server: (input: SyncServerInput) => void;
  readonly mark: (mark: string) => void;
}

/** What the client side asks of its streams. */
export type ClientStreamOutput = Extract<
  SyncClientOutput,
  { kind: "open" | "send" | "finish" | "abort" | "reading" }
>;

/** What the server side asks of its streams. */
export type ServerStreamOutput = Extract<SyncServerOutput, { kind: "send" | "finish" | "abort" }>;

/** Streams by session. */
export class SimSessions {
  readonly #options: SimSessionsOptions;
  readonly #clientStreams = new Map<number, StreamEnd<SessionMessage>>();
  readonly #serverStreams = new Map<number, StreamEnd<SessionMessage>>();
  #nextServerSession = 1;
  #isHeld = false;
  #isStopped = false;

  constructor(options: SimSessionsOptions) {
    this.#options = options;
  }

  /** The replica's life is over: nothing is heard any more. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Takes a stream that a peer opened. */
  accept(stream: StreamEnd<SessionMessage>): boolean {
    if (this.#isStopped) return false;
    const sessionId = this.#nextServerSession;
    this.#nextServerSession += 1;
    this.#serverStreams.set(sessionId, stream);
    this.#listen(stream, (input) => this.#options.server({ ...input, sessionId }));
    this.#options.server({ kind: "accepted", sessionId });
    return true;
  }

  /** Performs an effect of the client. */
  performClient(output: ClientStreamOutput): void {
    switch (output.kind) {
      case "open":
        return this.#open(output.sessionId, output.peer.address);
      case "send":
        return this.#clientStreams.get(output.sessionId)?.send(this.#recoded(output.message));
      case "finish":
        return this.#clientStreams.get(output.sessionId)?.finish();
      case "abort":
        this.#clientStreams.get(output.sessionId)?.abort();
        this.#clientStreams.delete(output.sessionId);
        return;
      case "reading":
        this.#isHeld = output.isPaused;
        this.#options.mark(output.isPaused ? "reading held" : "reading let go on");
        for (const stream of this.#clientStreams.values()) stream.hold(output.isPaused);
    }
  }

  /** Performs an effect of the server. */
  performServer(output: ServerStreamOutput): void {
    const { sessionId } = output;
    switch (output.kind) {
      case "send":
        return this.#answer(sessionId, output.message);
      case "finish":
        this.#serverStreams.get(sessionId)?.finish();
        this.#serverStreams.delete(sessionId);
        return;
      case "abort":
        this.#serverStreams.get(sessionId)?.abort();
        this.#serverStreams.delete(sessionId);
    }
  }

  #open(sessionId: number, target: Address): void {
    const { network, address, client } = this.#options;
    network.open({ source: address, target }, (stream) => {
      // Opened for a life that is over: its connection is, too.
      if (this.#isStopped) return;
      if (stream === null) return client({ kind: "openFailed", sessionId });
      this.#clientStreams.set(sessionId, stream);
      stream.hold(this.#isHeld);
      this.#listen(stream, (input) => client({ ...input, sessionId }));
      client({ kind: "opened", sessionId });
    });
  }

  #answer(sessionId: number, message: SessionMessage): void {
    const stream = this.#serverStreams.get(sessionId);
    if (message.kind !== "changesets") return stream?.send(this.#recoded(message));
    const frames = message.changesets.length;
    if (message.changesets.some(({ kind }) => kind === "empty")) this.#options.mark("empty served");
    const { queue, server } = this.#options;
    const startedMs = queue.nowMs;
    stream?.send(this.#recoded(message), () => {
      if (this.#isStopped) return;
      server({ kind: "sent", sessionId, frames, tookMs: queue.nowMs - startedMs });
    });
  }

  #listen(stream: StreamEnd<SessionMessage>, put: (input: StreamNews) => void): void {
    const inThisLife = (news: StreamNews): void => {
      if (!this.#isStopped) put(news);
    };
    stream.onMessage = (message) => inThisLife({ kind: "message", message });
    stream.onFinished = () => inThisLife({ kind: "finished" });
    stream.onBroken = () => {
      if (!this.#isStopped) this.#options.mark("stream broken");
      inThisLife({ kind: "broken" });
    };
  }

  #recoded(message: SessionMessage): SessionMessage {
    return this.#options.isEncoding ? recodeMessage(message) : message;
  }
}

type StreamNews =
  | { readonly kind: "message"; readonly message: SessionMessage }
  | { readonly kind: "finished" }
  | { readonly kind: "broken" };
