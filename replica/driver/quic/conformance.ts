/**
 * What every implementation of the `Transport` port must do, as a test suite: run on QUIC, on the
 * simulated network, and on any transport added later. It is what makes the simulator evidence
 * about production.
 *
 * The suite never waits for a time: it asks the network to go on until something has happened, so a
 * simulated network can step its own clock.
 */
import { describe, expect, test } from "vitest";
import type { PatinaError } from "#base/errors.ts";
import type { Address, BiStream, Transport, TransportEvents } from "../../types.ts";

/** A network that joins the transports of one test. */
export interface TransportNetwork extends AsyncDisposable {
  /** Starts a transport on an address of its own. */
  open(events: TransportEvents): Promise<Transport>;
  /** Lets the network go on until the condition holds. */
  until(condition: () => boolean): Promise<void>;
  /** An address where nobody answers; must be found out within the test's time. */
  readonly vacant: Address;
}

/** Declares the suite for one implementation. */
export function describeTransport(
  name: string,
  createNetwork: () => Promise<TransportNetwork>,
): void {
  describe(`${name} as a transport`, () => {
    declareMessageTests(createNetwork);
    declareStreamTests(createNetwork);
    declareLifecycleTests(createNetwork);
  });
}

function declareMessageTests(createNetwork: () => Promise<TransportNetwork>): void {
  test("datagrams arrive whole both ways, the first before any connection", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    left.transport.sendDatagram(right.local, Buffer.from("ping"));
    right.transport.sendDatagram(left.local, Buffer.from("pong"));
    await network.until(() => left.datagrams.length > 0 && right.datagrams.length > 0);
    expect(right.datagrams.map(text)).toEqual(["ping"]);
    expect(left.datagrams.map(text)).toEqual(["pong"]);
  });

  test("a unidirectional stream delivers its frames together and in order", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    const frames = [Buffer.from("one"), Buffer.alloc(0), Buffer.alloc(100_000, 3)];
    const sent = left.transport.sendUni(right.local, frames);
    await network.until(() => right.unis.length > 0);
    expect(await sent).toBe(true);
    expect(right.unis.map((unis) => unis.map(hex))).toEqual([frames.map(hex)]);
  });

  test("a thousand unidirectional streams at once all arrive, each once", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    const sends = Array.from({ length: 1_000 }, (_, at) => {
      const options = { urgent: at % 10 === 0 };
      return left.transport.sendUni(right.local, [Buffer.from(`${at}`), FILLER], options);
    });
    await network.until(() => right.unis.length >= sends.length);
    expect(await Promise.all(sends)).toEqual(sends.map(() => true));
    const numbers = right.unis.map(([first]) => Number(text(first ?? FILLER)));
    expect(numbers.sort((first, second) => first - second)).toEqual(sends.map((_, at) => at));
  });

  test("a target where nobody answers fails every kind of send and is reported", async () => {
    await using network = await createNetwork();
    const left = await Side.open(network);
    left.transport.sendDatagram(network.vacant, Buffer.from("lost"));
    const uni = left.transport.sendUni(network.vacant, [Buffer.from("lost")]);
    const refusal = left.transport.openBi(network.vacant).catch((error: PatinaError) => error);
    await network.until(() => left.edges.length > 0);
    expect(await uni).toBe(false);
    expect(await refusal).toMatchObject({ code: "TRANSPORT_CONNECT" });
    expect(left.edges[0]).toMatchObject({ target: network.vacant, state: "down" });
  });
}

function declareStreamTests(createNetwork: () => Promise<TransportNetwork>): void {
  test("a bidirectional stream carries frames in order both ways, then both ends", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    const stream = await left.openBi(right.local, network);
    const answers = collect(stream);
    await stream.send(Buffer.from("question"));
    stream.finish();
    await network.until(() => right.streams.length > 0);
    const served = firstOf(right.streams);
    const questions = collect(served);
    await served.send(Buffer.from("answer 1"));
    await served.send(Buffer.from("answer 2"));
    served.finish();
    await network.until(() => answers.isEnded && questions.isEnded);
    expect(questions.texts).toEqual(["question"]);
    expect(answers.texts).toEqual(["answer 1", "answer 2"]);
    expect([answers.broken, questions.broken]).toEqual([null, null]);
  });

  test("a reader that does not read stops the sender, and reading lets it go on", async () => {
    // Goal: memory stays bounded. Method: send 16 MB to a stream that nobody reads; the sends must
    // stop being accepted long before; then read, and everything must arrive.
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    const stream = await left.openBi(right.local, network);
    let acceptedBytes = 0;
    const all = (async () => {
      for (let at = 0; at < 256; at += 1) {
        await stream.send(Buffer.alloc(65_536, at));
        acceptedBytes += 65_536;
      }
      stream.finish();
    })();
    await network.until(() => right.streams.length > 0);
    await untilQuiet(network, () => acceptedBytes);
    expect(acceptedBytes).toBeLessThan(8_000_000);
    let receivedBytes = 0;
    let isEnded = false;
    firstOf(right.streams).onFrame((frame) => {
      receivedBytes += frame?.length ?? 0;
      isEnded = frame === null;
    });
    await network.until(() => isEnded);
    await all;
    expect(receivedBytes).toBe(256 * 65_536);
  });

  test("a reader's pending promise holds back the next frame", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    const stream = await left.openBi(right.local, network);
    for (const text of ["a", "b", "c"]) await stream.send(Buffer.from(text));
    stream.finish();
    await network.until(() => right.streams.length > 0);
    const seen: string[] = [];
    let release = (): void => {};
    firstOf(right.streams).onFrame((frame) => {
      seen.push(frame === null ? "end" : text(frame));
      return new Promise((resolve) => (release = resolve));
    });
    for (const expected of [["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "end"]]) {
      await network.until(() => seen.length === expected.length);
      await untilQuiet(network, () => seen.length);
      expect(seen).toEqual(expected);
      release();
    }
  });

  test("an aborted stream breaks on the other side, and refuses to send on this one", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    const stream = await left.openBi(right.local, network);
    const own = collect(stream);
    await stream.send(Buffer.from("hello"));
    await network.until(() => right.streams.length > 0);
    const other = collect(firstOf(right.streams));
    await network.until(() => other.texts.length > 0);
    stream.abort();
    stream.abort();
    await expect(stream.send(Buffer.from("late"))).rejects.toMatchObject({
      code: "TRANSPORT_CLOSED",
    });
    await network.until(() => other.broken !== null);
    expect(other.broken).toMatchObject({ code: "TRANSPORT_CLOSED" });
    expect(own.broken).toBeNull();
  });
}

function declareLifecycleTests(createNetwork: () => Promise<TransportNetwork>): void {
  test("nothing is told from inside a call", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    await left.exchange(right, network);
    const before = left.told + right.told;
    left.transport.sendDatagram(right.local, Buffer.from("x"));
    void left.transport.sendUni(right.local, [Buffer.from("x")]);
    left.transport.forget(right.local, "test");
    expect(left.told + right.told).toBe(before);
  });

  test("forgetting a target breaks its streams, and the next send dials anew", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    const stream = await left.openBi(right.local, network);
    const own = collect(stream);
    left.transport.forget(right.local, "newer identity");
    await network.until(() => own.broken !== null);
    const sent = left.transport.sendUni(right.local, [Buffer.from("first")]);
    await network.until(() => right.unis.length > 0);
    expect(await sent).toBe(true);
    expect(left.edges.map(({ state }) => state)).toEqual(["up", "down", "up"]);
  });

  test("closing breaks the peer's streams and makes every later send fail", async () => {
    await using network = await createNetwork();
    const [left, right] = [await Side.open(network), await Side.open(network)];
    const stream = await left.openBi(right.local, network);
    const own = collect(stream);
    await stream.send(Buffer.from("hello"));
    await network.until(() => right.streams.length > 0);
    await right.transport.close();
    await network.until(() => own.broken !== null && left.edges.length > 1);
    expect(left.edges[1]).toMatchObject({ target: right.local, state: "down" });
    expect(await right.transport.sendUni(left.local, [Buffer.from("x")])).toBe(false);
    await expect(right.transport.openBi(left.local)).rejects.toMatchObject({
      code: "TRANSPORT_CLOSED",
    });
    right.transport.sendDatagram(left.local, Buffer.from("x"));
    await right.transport.close();
  });
}

/** One transport and what it was told. */
class Side implements TransportEvents {
  readonly datagrams: Uint8Array[] = [];
  readonly unis: (readonly Uint8Array[])[] = [];
  readonly streams: BiStream[] = [];
  readonly edges: { target: Address; state: "up" | "down"; reason: string }[] = [];
  told = 0;
  #transport: Transport | null = null;

  static async open(network: TransportNetwork): Promise<Side> {
    const side = new Side();
    side.#transport = await network.open(side);
    return side;
  }

  get transport(): Transport {
    if (this.#transport === null) throw new Error("not open");
    return this.#transport;
  }

  get local(): Address {
    return this.transport.local;
  }

  async openBi(target: Address, network: TransportNetwork): Promise<BiStream> {
    let stream: BiStream | null = null;
    const opening = this.transport.openBi(target).then((opened) => (stream = opened));
    await network.until(() => stream !== null);
    return await opening;
  }

  async exchange(other: Side, network: TransportNetwork): Promise<void> {
    this.transport.sendDatagram(other.local, Buffer.from("hello"));
    await network.until(() => other.datagrams.length > 0);
  }

  datagram(bytes: Uint8Array): void {
    this.told += 1;
    this.datagrams.push(bytes);
  }

  uniFrames(frames: readonly Uint8Array[]): void {
    this.told += 1;
    this.unis.push(frames);
  }

  biStream(stream: BiStream): void {
    this.told += 1;
    this.streams.push(stream);
  }

  rtt(): void {
    this.told += 1;
  }

  connection(target: Address, state: "up" | "down", reason: string): void {
    this.told += 1;
    this.edges.push({ target, state, reason });
  }
}

interface Collected {
  readonly texts: string[];
  isEnded: boolean;
  broken: PatinaError | null;
}

function collect(stream: BiStream): Collected {
  const collected: Collected = { texts: [], isEnded: false, broken: null };
  stream.onBroken((error) => (collected.broken = error));
  stream.onFrame((frame) => {
    if (frame === null) collected.isEnded = true;
    else collected.texts.push(text(frame));
  });
  return collected;
}

/** Lets the network go on until `progress` stays the same for many steps. */
async function untilQuiet(network: TransportNetwork, progress: () => number): Promise<void> {
  let last = progress();
  let quiet = 0;
  await network.until(() => {
    const at = progress();
    quiet = at === last ? quiet + 1 : 0;
    last = at;
    return quiet >= QUIET_STEPS;
  });
}

function firstOf<Item>(items: readonly Item[]): Item {
  const first = items[0];
  if (first === undefined) throw new Error("there is none");
  return first;
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

const FILLER = Buffer.alloc(5_000, 1);
/** Arbitrary; far more steps than a packet needs on loopback. */
const QUIET_STEPS = 200;
