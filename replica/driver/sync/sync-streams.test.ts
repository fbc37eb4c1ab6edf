/** Two sides joined by streams in memory: what one machine says, the other one hears. */
import { beforeEach, describe, expect, test } from "vitest";
import { PatinaError } from "#base/errors.ts";
import { ACTOR_A, ACTOR_B } from "../../../tests/wire-fixtures.ts";
import type { SyncClientInput } from "../../core/sync/client-types.ts";
import type { SyncServerInput } from "../../core/sync/sync-server.ts";
import { encodeChange } from "../../core/wire/changeset-codec.ts";
import { changeBytes } from "../../core/wire/encoded-changeset.ts";
import { decodeSyncMessage, encodeSyncStart } from "../../core/wire/sync-messages.ts";
import type { BiStream, FullChangeset, Transport } from "../../types.ts";
import { Zstd } from "../compression/zstd.ts";
import { SyncStreams } from "./sync-streams.ts";

const PEER = { actorId: ACTOR_B, address: "127.0.0.1:4002", clusterId: 0, ring: null };
const START = {
  kind: "start",
  actorId: ACTOR_A,
  traceparent: null,
  tracestate: null,
  clusterId: 0,
  supportsCompression: false,
} as const;

/** Compresses nothing. */
const PLAIN = new Zstd({ isEnabled: false, level: 3, folder: null, file: null });

let heard: (SyncClientInput | SyncServerInput)[];
let streams: SyncStreams;
let opened: FakeStream[];
let dial: (stream: BiStream) => Promise<BiStream>;

beforeEach(() => {
  heard = [];
  opened = [];
  dial = (stream) => Promise.resolve(stream);
  const transport = {
    openBi: () => {
      const stream = new FakeStream();
      opened.push(stream);
      return dial(stream);
    },
  } as unknown as Transport;
  const events = {
    client: (input: SyncClientInput) => heard.push(input),
    server: (input: SyncServerInput) => heard.push(input),
  };
  streams = new SyncStreams(transport, events, PLAIN);
});

describe("as a client", () => {
  test("a session opens a stream, says its part and hears the answers in order", async () => {
    const stream = await open(1);
    streams.performClient({ kind: "send", sessionId: 1, message: START });
    expect(stream.sent).toHaveLength(1);
    streams.performClient({ kind: "finish", sessionId: 1 });
    expect([stream.isFinished, streams.openCount]).toEqual([true, 1]);

    const answers = framesOf([changeset(1), changeset(2)]);
    for (const frame of answers) await stream.hear(frame);
    await stream.hear(null);
    expect(heard.slice(1)).toMatchObject([
      { kind: "message", sessionId: 1, message: { kind: "changesets" } },
      { kind: "message", sessionId: 1, message: { kind: "changesets" } },
      { kind: "finished", sessionId: 1 },
    ]);
    expect(heard.flatMap(bytesOfAnswer)).toEqual([changeset(1), changeset(2)].map(encodeChange));
    expect(streams.openCount).toBe(0);
  });

  test("a server that cannot be dialled is told as such", async () => {
    dial = () => Promise.reject(new PatinaError("TRANSPORT_CONNECT", "nobody"));
    streams.performClient({ kind: "open", sessionId: 1, peer: PEER });
    await settled();
    expect(heard).toEqual([{ kind: "openFailed", sessionId: 1 }]);
  });

  test("a session given up while it is dialled gets its stream aborted and hears nothing", async () => {
    streams.performClient({ kind: "open", sessionId: 1, peer: PEER });
    streams.performClient({ kind: "abort", sessionId: 1 });
    await settled();
    expect(opened[0]?.isAborted).toBe(true);
    expect([heard, streams.openCount]).toEqual([[], 0]);
  });

  test("bytes that are no message end the session as broken, once", async () => {
    const stream = await open(1);
    await stream.hear(Buffer.from("no message"));
    await stream.hear(framesOf([changeset(1)])[0]!);
    stream.break();
    expect(heard.slice(1)).toEqual([{ kind: "broken", sessionId: 1 }]);
    expect([stream.isAborted, streams.stats.badFrames, streams.openCount]).toEqual([true, 1, 0]);
  });

  test("an answer with a value that is none does not end its session: the store tells", async () => {
    const stream = await open(1);
    const [frame, next] = framesOf([changeset(1), changeset(2)]);
    // The value, which is the only text with a d in it.
    frame!.set([0xff], frame!.lastIndexOf(0x64));
    await stream.hear(frame!);
    await stream.hear(next!);
    expect(heard.slice(1)).toMatchObject([
      { message: { kind: "changesets", changesets: [{ version: 1, problem: "text-malformed" }] } },
      { kind: "message", message: { kind: "changesets" } },
    ]);
    expect([stream.isAborted, streams.stats.badFrames]).toEqual([false, 0]);
  });

  test("while the machine is behind, frames wait, in all sessions", async () => {
    const stream = await open(1);
    const [frame] = framesOf([changeset(1)]);
    streams.performClient({ kind: "reading", isPaused: true });
    let isTaken = false;
    const taken = stream.hear(frame!).then(() => (isTaken = true));
    await settled();
    expect(isTaken).toBe(false);
    streams.performClient({ kind: "reading", isPaused: false });
    await taken;
    expect(isTaken).toBe(true);
  });

  test("a send on a stream that breaks is no error of its own: the break tells it", async () => {
    const stream = await open(1);
    stream.isBroken = true;
    streams.performClient({ kind: "send", sessionId: 1, message: START });
    await settled();
    stream.break();
    expect(heard.slice(1)).toEqual([{ kind: "broken", sessionId: 1 }]);
  });
});

describe("as a server", () => {
  test("the first frame is the client's start; later ones are messages", async () => {
    const stream = accepted();
    await stream.hear(startFrame());
    await stream.hear(null);
    expect(heard).toEqual([
      { kind: "accepted", sessionId: 1 },
      { kind: "message", sessionId: 1, message: START },
      { kind: "finished", sessionId: 1 },
    ]);
  });

  test("an answer goes out one frame each, and the machine hears when it has gone", async () => {
    const stream = accepted();
    const message = { kind: "changesets", changesets: [changeset(1), changeset(2)] } as const;
    streams.performServer({ kind: "send", sessionId: 1, message });
    expect(stream.sent).toHaveLength(2);
    expect(heard).toHaveLength(1);
    await settled();
    expect(heard.at(-1)).toMatchObject({ kind: "sent", sessionId: 1, frames: 2 });
  });

  test("a start in another's name than the certificate's breaks the session", async () => {
    const stream = accepted(ACTOR_B);
    await stream.hear(startFrame());
    expect(heard.slice(1)).toEqual([{ kind: "broken", sessionId: 1 }]);
    expect([stream.isAborted, streams.stats.badFrames]).toEqual([true, 1]);
    const honest = accepted(START.actorId);
    await honest.hear(startFrame());
    expect(heard.at(-1)).toMatchObject({ kind: "message", sessionId: 2 });
  });

  test("a first frame that is no start breaks the session", async () => {
    const stream = accepted();
    await stream.hear(framesOf([changeset(1)])[0]!);
    await stream.hear(startFrame());
    expect(heard.slice(1)).toEqual([{ kind: "broken", sessionId: 1 }]);
    expect([stream.isAborted, streams.openCount]).toEqual([true, 0]);
  });

  test("what a stream does after its session was given up is not heard", async () => {
    const stream = accepted();
    streams.performServer({ kind: "abort", sessionId: 1 });
    await stream.hear(startFrame());
    stream.break();
    expect(heard).toEqual([{ kind: "accepted", sessionId: 1 }]);
  });
});

test("answers are compressed for a client that takes such, by a server that compresses", () => {
  const zstd = new Zstd({ isEnabled: true, level: 3, folder: null, file: null });
  const [row] = changeset(1).changes;
  const large = { ...changeset(1), changes: [{ ...row!, val: "x".repeat(2000) }] };
  const answer = (supportsCompression: boolean, by: Zstd): Uint8Array =>
    recorded((other, stream) => {
      other.accept(stream);
      void stream.hear(encodeSyncStart({ ...START, supportsCompression }));
      const message = { kind: "changesets", changesets: [large] } as const;
      other.performServer({ kind: "send", sessionId: 1, message });
    }, by)[0]!;
  const compressed = decodeSyncMessage(answer(true, zstd));
  expect(compressed).toMatchObject({ ok: true, value: { kind: "compressedChangeset" } });
  expect(answer(true, zstd).length).toBeLessThan(200);
  expect(answer(false, zstd).length).toBeGreaterThan(2000);
  expect(answer(true, PLAIN).length).toBeGreaterThan(2000);
});

async function open(sessionId: number): Promise<FakeStream> {
  streams.performClient({ kind: "open", sessionId, peer: PEER });
  await settled();
  expect(heard).toEqual([{ kind: "opened", sessionId }]);
  return opened[0]!;
}

function accepted(peerActorId: string | null = null): FakeStream {
  const stream = new FakeStream();
  stream.peerActorId = peerActorId;
  streams.accept(stream);
  return stream;
}

/** What a server sends for these changesets. */
function framesOf(changesets: readonly FullChangeset[]): Uint8Array[] {
  return recorded((other, stream) => {
    other.accept(stream);
    const message = { kind: "changesets", changesets } as const;
    other.performServer({ kind: "send", sessionId: 1, message });
  });
}

function startFrame(): Uint8Array {
  return encodeSyncStart(START);
}

function recorded(
  say: (other: SyncStreams, stream: FakeStream) => void,
  zstd = PLAIN,
): Uint8Array[] {
  const nobody = { client: () => undefined, server: () => undefined };
  const stream = new FakeStream();
  say(new SyncStreams({} as Transport, nobody, zstd), stream);
  return stream.sent;
}

function bytesOfAnswer(input: SyncClientInput | SyncServerInput): Uint8Array[] {
  const message = input.kind === "message" ? input.message : null;
  return message?.kind === "changesets" ? message.changesets.map(changeBytes) : [];
}

/** Lets promises that are due be settled. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

function changeset(version: number): FullChangeset {
  const change = {
    table: "machines",
    pk: Uint8Array.of(1, 0x0b, 1, 0x61),
    cid: "state",
    val: "started",
    colVersion: 1,
    seq: 0,
    cl: 1,
  };
  const seqs = { start: 0, end: 0 };
  return { kind: "full", actorId: ACTOR_B, version, changes: [change], seqs, lastSeq: 0, ts: 16n };
}

/** One side of a stream; the test is the other side. */
class FakeStream implements BiStream {
  readonly remote = PEER.address;
  peerActorId: string | null = null;
  readonly sent: Uint8Array[] = [];
  isFinished = false;
  isAborted = false;
  isBroken = false;
  #onFrame: (frame: Uint8Array | null) => void | Promise<void> = () => undefined;
  #onBroken: (error: PatinaError) => void = () => undefined;

  send(frame: Uint8Array): Promise<void> {
    if (this.isBroken) return Promise.reject(new PatinaError("TRANSPORT_STREAM", "broken"));
    this.sent.push(Uint8Array.from(frame));
    return Promise.resolve();
  }

  finish(): void {
    this.isFinished = true;
  }

  abort(): void {
    this.isAborted = true;
  }

  onFrame(listener: (frame: Uint8Array | null) => void | Promise<void>): void {
    this.#onFrame = listener;
  }

  onBroken(listener: (error: PatinaError) => void): void {
    this.#onBroken = listener;
  }

  async hear(frame: Uint8Array | null): Promise<void> {
    await this.#onFrame(frame);
  }

  break(): void {
    this.#onBroken(new PatinaError("TRANSPORT_STREAM", "broken"));
  }
}
