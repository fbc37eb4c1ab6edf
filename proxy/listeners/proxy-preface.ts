/** Takes the PROXY protocol header off a connection before anybody else reads it. */
import type { Socket } from "node:net";
import { readProxyHeader } from "./core/proxy-protocol.ts";

/** Who is told. */
export interface PrefaceEvents {
  /** The header is read, the socket is paused with what followed; `null`: it names no client. */
  done(address: string | null): void;
  /** It was no header, or did not come in time; the socket is closed. */
  refused(): void;
}

/** Reads the header; a socket that closes before is not heard of again. */
export function readPreface(socket: Socket, limitMs: number, events: PrefaceEvents): void {
  let held: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => refuse(), limitMs);
  const stop = (): void => {
    clearTimeout(timer);
    socket.off("data", onData);
    socket.off("end", refuse);
    socket.off("close", stop);
  };
  const refuse = (): void => {
    stop();
    socket.destroy();
    events.refused();
  };
  const onData = (bytes: Buffer): void => {
    held = held.length === 0 ? bytes : Buffer.concat([held, bytes]);
    const header = readProxyHeader(held);
    if (header.kind === "more") return;
    if (header.kind === "refused") return refuse();
    stop();
    socket.pause();
    if (held.length > header.length) socket.unshift(held.subarray(header.length));
    events.done(header.address);
  };
  socket.on("data", onData);
  socket.on("end", refuse);
  socket.on("close", stop);
  // It may vanish at any time; `close` follows.
  socket.on("error", () => undefined);
}
