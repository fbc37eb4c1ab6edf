/**
 * What a connection that does nothing costs in memory: connections are opened, each asks once, and
 * the process tree's memory is compared with what it was before.
 *
 * Processes keep what they have freed, so a connection in the place of an earlier one seems to cost
 * nothing. Nothing is closed, therefore, before the last run: each run adds its connections to those
 * of the runs before, and this is measured first of all. The kernel's own memory is in no figure.
 */
import { connect, type Socket } from "node:net";
import { sleep } from "../local-cluster.ts";
import { GET_HOST } from "./cases.ts";
import { treeMemoryKiB } from "./process-tree.ts";
import type { Rival } from "./rivals.ts";

/** Memory in KiB per connection, one figure per run. */
export async function idleMemoryKiB(
  rival: Rival,
  options: { readonly connections: number; readonly runs: number },
): Promise<number[]> {
  const { connections, runs } = options;
  // Code and buffers that the first connections need are not the price of one.
  const sockets = await openAll(rival.port, WARM_UP_CONNECTIONS);
  await sleep(SETTLE_MS);
  const figures: number[] = [];
  for (let run = 0; run < runs; run++) {
    const beforeKiB = treeMemoryKiB(rival.pid);
    sockets.push(...(await openAll(rival.port, connections)));
    await sleep(SETTLE_MS);
    figures.push((treeMemoryKiB(rival.pid) - beforeKiB) / connections);
  }
  const closed = sockets.filter((socket) => socket.readyState !== "open").length;
  await closeAll(sockets);
  if (closed > 0) throw new Error(`${rival.name} closed ${closed} idle connections`);
  return figures;
}

/** Opens connections, each answered once; some at a time, so that no accept queue runs over. */
export async function openAll(port: number, count: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  while (sockets.length < count) {
    const batch = Math.min(BATCH, count - sockets.length);
    sockets.push(...(await Promise.all(Array.from({ length: batch }, () => openOne(port)))));
  }
  return sockets;
}

/** Resolves when its one request has been answered. */
function openOne(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let text = "";
    const onData = (bytes: Buffer): void => {
      text += bytes.toString("latin1");
      if (!text.includes("\r\n\r\n")) return;
      socket.off("data", onData);
      socket.resume();
      if (text.startsWith("HTTP/1.1 200")) resolve(socket);
      else reject(new Error(`answered with ${text.slice(0, 40)}`));
    };
    socket.on("data", onData);
    socket.on("error", reject);
    socket.once("connect", () => socket.write(`GET /0 HTTP/1.1\r\nHost: ${GET_HOST}\r\n\r\n`));
  });
}

/** Resolves when all are closed on this side. */
export async function closeAll(sockets: readonly Socket[]): Promise<void> {
  await Promise.all(
    sockets.map((socket) => {
      if (socket.closed) return Promise.resolve();
      const closed = new Promise((resolve) => socket.once("close", resolve));
      socket.destroy();
      return closed;
    }),
  );
}

const BATCH = 50;
const WARM_UP_CONNECTIONS = 200;
/** Longer than a collection of garbage takes to come once there is nothing to do. */
const SETTLE_MS = 1_500;
