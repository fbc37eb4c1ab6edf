/** Free ports for processes that are started later. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";

/**
 * Finds `count` ports that are free for TCP and UDP on 127.0.0.1 right now. All are held until the
 * last is found, so they differ; somebody else may still take one before it is used. None is of the
 * range that the system draws from for outgoing connections: under traffic, one of those would.
 */
export async function freePorts(count: number): Promise<number[]> {
  const held: { port: number; release: () => Promise<void> }[] = [];
  try {
    for (let tries = 0; held.length < count && tries < count * 20; tries++) {
      const found = await holdPort();
      if (found) held.push(found);
    }
  } finally {
    await Promise.all(held.map((one) => one.release()));
  }
  if (held.length < count) throw new Error(`only ${held.length} of ${count} free ports were found`);
  return held.map((one) => one.port);
}

async function holdPort(): Promise<{ port: number; release: () => Promise<void> } | null> {
  const server = createServer();
  const port = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN + 1));
  const isListening = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => resolve(true));
  });
  if (!isListening) return null;
  const closeServer = async (): Promise<void> => {
    server.close();
    await once(server, "close");
  };
  const socket = createSocket("udp4");
  const isBound = await new Promise<boolean>((resolve) => {
    socket.once("error", () => resolve(false));
    socket.bind(port, "127.0.0.1", () => resolve(true));
  });
  if (!isBound) {
    await closeServer();
    return null;
  }
  return {
    port,
    release: async () => {
      await closeServer();
      await new Promise<void>((resolve) => socket.close(() => resolve()));
    },
  };
}

/** Below the ephemeral ports of Linux (32768) and macOS (49152), above those of common services. */
const PORT_MIN = 15_000;
const PORT_MAX = 32_000;
