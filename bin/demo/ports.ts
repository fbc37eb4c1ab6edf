/** Ports from the system for processes that are started later. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";

/**
 * Finds `count` ports that are free for TCP and UDP on 127.0.0.1 right now. All are held until the
 * last is found, so they differ; somebody else may still take one before it is used.
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
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
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
