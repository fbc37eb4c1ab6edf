/** For tests and measurements: certificates, and transports that record what they are told. */
import type { ActorId, BiStream, TransportEvents } from "../../types.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
  type CertificatePems,
} from "../certificates/certificates.ts";
import type { QuicTransportOptions } from "./options.ts";
import { QuicTransport } from "./quic-transport.ts";
import type { TransportCertificates } from "./tls-config.ts";

/** Issues one replica's certificates; by default valid from five minutes ago for a year. */
export async function createTestCertificates(
  options: {
    authority?: CertificatePems;
    trusted?: CertificatePems;
    addresses?: readonly string[];
    nowMs?: number;
    validityDays?: number;
    actorId?: ActorId;
  } = {},
): Promise<TransportCertificates> {
  const nowMs = options.nowMs ?? Date.now();
  const authority = options.authority ?? (await createCertificateAuthority({ nowMs }));
  const { actorId } = options;
  const named = actorId === undefined ? {} : { actorId };
  const leaf = { nowMs, validityDays: options.validityDays ?? 365, ...named };
  const addresses = options.addresses ?? ["127.0.0.1", "::1"];
  const server = await issueServerCertificate(authority, { ...leaf, addresses });
  const client = await issueClientCertificate(authority, leaf);
  return {
    authoritiesPem: (options.trusted ?? authority).certificatePem,
    server,
    client,
    checksServers: true,
    ...named,
  };
}

/** What happened, in the words of `TransportEvents`, with hooks for the live parts. */
export class RecordedEvents implements TransportEvents {
  readonly datagrams: { bytes: Uint8Array; remote: string; actorId: ActorId | null }[] = [];
  readonly unis: { frames: readonly Uint8Array[]; remote: string }[] = [];
  readonly streams: BiStream[] = [];
  readonly rtts: { target: string; rttMs: number }[] = [];
  readonly edges: { target: string; state: "up" | "down"; reason: string }[] = [];
  #onDatagram: (bytes: Uint8Array) => void = (bytes) => {
    this.datagrams.push({ bytes, remote: this.#remote, actorId: this.#actorId });
  };
  #onBiStream: (stream: BiStream) => void = (stream) => this.streams.push(stream);
  #remote = "";
  #actorId: ActorId | null = null;
  #watchers: (() => void)[] = [];

  onDatagram(listener: (bytes: Uint8Array) => void): void {
    this.#onDatagram = listener;
  }

  onBiStream(listener: (stream: BiStream) => void): void {
    this.#onBiStream = listener;
  }

  /** Resolves once `condition` holds; it is asked after each event. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#watchers.push(resolve));
  }

  datagram(bytes: Uint8Array, remote: string, actorId: ActorId | null = null): void {
    this.#remote = remote;
    this.#actorId = actorId;
    this.#onDatagram(bytes);
    this.#changed();
  }

  uniFrames(frames: readonly Uint8Array[], remote: string): void {
    this.unis.push({ frames, remote });
    this.#changed();
  }

  biStream(stream: BiStream): void {
    this.#onBiStream(stream);
    this.#changed();
  }

  rtt(target: string, rttMs: number): void {
    this.rtts.push({ target, rttMs });
    this.#changed();
  }

  connection(target: string, state: "up" | "down", reason: string): void {
    this.edges.push({ target, state, reason });
    this.#changed();
  }

  #changed(): void {
    for (const resolve of this.#watchers.splice(0)) resolve();
  }
}

/** A transport together with what it was told; closed by `await using`. */
export interface Endpoint extends AsyncDisposable {
  readonly transport: QuicTransport;
  readonly events: RecordedEvents;
}

/** Opens one transport on a loopback port chosen by the system. */
export async function openEndpoint(
  options: Partial<QuicTransportOptions> & Pick<QuicTransportOptions, "certificates">,
): Promise<Endpoint> {
  const events = new RecordedEvents();
  const transport = await QuicTransport.open({ local: "127.0.0.1:0", ...options }, events);
  return { transport, events, [Symbol.asyncDispose]: () => transport.close() };
}

/** Two transports with the same certificates. */
export async function openPair(request: {
  readonly certificates: QuicTransportOptions["certificates"];
  readonly options?: Partial<QuicTransportOptions>;
}): Promise<AsyncDisposable & { left: PairSide; right: PairSide }> {
  const options = { ...request.options, certificates: request.certificates };
  const [left, right] = [await openEndpoint(options), await openEndpoint(options)];
  return {
    left: pairSide(left),
    right: pairSide(right),
    [Symbol.asyncDispose]: async () => {
      await left.transport.close();
      await right.transport.close();
    },
  };
}

/** One side of a pair. */
export interface PairSide {
  readonly transport: QuicTransport;
  readonly events: RecordedEvents;
  onDatagram(listener: (bytes: Uint8Array) => void): void;
  onBiStream(listener: (stream: BiStream) => void): void;
}

function pairSide(endpoint: Endpoint): PairSide {
  const { transport, events } = endpoint;
  return {
    transport,
    events,
    onDatagram: (listener) => events.onDatagram(listener),
    onBiStream: (listener) => events.onBiStream(listener),
  };
}
