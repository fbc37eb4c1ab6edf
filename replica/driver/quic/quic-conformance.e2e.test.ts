import { createSocket, type Socket } from "node:dgram";
import { describeTransport, type TransportNetwork } from "./conformance.ts";
import type { Transport } from "../../types.ts";
import type { QuicTransportOptions } from "./options.ts";
import { QuicTransport } from "./quic-transport.ts";
import { createTestCertificates } from "./transport-fixture.ts";

const certificates = await createTestCertificates();

const plaintext = { resetSeed: "conformance" };

describeTransport("QUIC on loopback", () => createNetwork("127.0.0.1:0", certificates));
describeTransport("QUIC on IPv6 loopback", () => createNetwork("[::1]:0", certificates));
describeTransport("plaintext QUIC on loopback", () => createNetwork("127.0.0.1:0", plaintext));
describeTransport("plaintext QUIC on IPv6 loopback", () => createNetwork("[::1]:0", plaintext));

async function createNetwork(
  local: string,
  certificates: QuicTransportOptions["certificates"],
): Promise<TransportNetwork> {
  const opened: Transport[] = [];
  // A bound socket that never answers: the port cannot be taken by anybody else meanwhile.
  const silent = await bindSilent(local);
  return {
    vacant: local.replace(/:0$/, `:${silent.address().port}`),
    async open(events) {
      const options = { local, certificates, connectTimeoutMs: 1_500 };
      const transport = await QuicTransport.open(options, events);
      opened.push(transport);
      return transport;
    },
    async until(condition) {
      while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
    },
    async [Symbol.asyncDispose]() {
      for (const transport of opened) await transport.close();
      silent.close();
    },
  };
}

async function bindSilent(local: string): Promise<Socket> {
  const isIpv6 = local.startsWith("[");
  const socket = createSocket(isIpv6 ? "udp6" : "udp4");
  await new Promise<void>((resolve) => socket.bind(0, isIpv6 ? "::1" : "127.0.0.1", resolve));
  return socket;
}
