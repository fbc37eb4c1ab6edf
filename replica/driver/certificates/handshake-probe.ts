/**
 * Asks a replica whether it would speak with somebody who has these certificates: one handshake, and the
 * start of a sync session of another cluster, which it refuses. The refusal is the proof: with TLS 1.3 a
 * dialler is through before the other side has looked at its certificate.
 *
 * Nothing is told to the replica and nothing changes there.
 */
import { errorText } from "#base/errors.ts";
import { splitHostPort } from "#base/host-port.ts";
import { encodeSyncStart } from "../../core/wire/sync-messages.ts";
import type { ActorId, Address } from "../../types.ts";
import { QuicTransport } from "../quic/quic-transport.ts";
import type { TransportCertificates } from "../quic/tls-config.ts";

/** As whom to ask. */
export interface ProbeOptions {
  readonly certificates: TransportCertificates;
  readonly actorId: ActorId;
  /** Not that of the cluster. */
  readonly foreignClusterId: number;
}

/** Why the replica at `target` refuses, or is refused; null = both sides are content. Never rejects. */
export async function probeHandshake(
  target: Address,
  { certificates, actorId, foreignClusterId }: ProbeOptions,
): Promise<string | null> {
  const isIpv6 = splitHostPort(target).host.includes(":");
  const ignore = (): void => undefined;
  const events = { datagram: ignore, uniFrames: ignore, rtt: ignore, connection: ignore };
  const transport = await QuicTransport.open(
    { local: isIpv6 ? "[::]:0" : "0.0.0.0:0", certificates },
    { ...events, biStream: (stream) => stream.abort() },
  );
  try {
    const stream = await transport.openBi(target);
    const { promise, resolve } = Promise.withResolvers<string | null>();
    stream.onFrame((frame) => resolve(frame === null ? "closed without an answer" : null));
    stream.onBroken((error) => resolve(errorText(error)));
    const deadline = setTimeout(() => resolve("no answer"), ANSWER_LIMIT_MS);
    await stream.send(
      encodeSyncStart({
        actorId,
        traceparent: null,
        tracestate: null,
        clusterId: foreignClusterId,
        supportsCompression: false,
      }),
    );
    const answer = await promise;
    clearTimeout(deadline);
    return answer;
  } catch (error) {
    return errorText(error);
  } finally {
    await transport.close();
  }
}

/** As long as a dial may take. */
const ANSWER_LIMIT_MS = 5_000;
