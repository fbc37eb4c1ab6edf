/**
 * Accepts connections of a listening socket the short way: each becomes a socket that reads into
 * memory of ours (`onread`), which `net.Server` offers for outgoing connections only, and that has
 * no server to report to.
 *
 * It takes the place of one function of Node's that is not documented, `onconnection` of the
 * server's handle, and gives TLS sockets what others get by `onread` when they are made. Node is
 * pinned, and all end-to-end tests of the engine come in through here.
 */
import { Socket, type Server, type SocketConstructorOpts } from "node:net";
import type { ReadInto } from "../types.ts";

/** Who takes the connections. */
export interface AcceptOptions {
  /** Absent = sockets emit `data`. */
  readonly onread?: ReadInto | undefined;
  /** Half open ones are allowed, and small writes are not delayed. */
  readonly take: (socket: Socket) => void;
  /** The system had one and could not give it: descriptors are used up, or it is gone. */
  readonly lost: () => void;
}

/** Once the server listens. Its own count of connections stays at 0. */
export function acceptSockets(server: Server, { onread, take, lost }: AcceptOptions): void {
  const { _handle: listening } = server as Server & { readonly _handle: ListeningHandle };
  // Accepted sockets have what the listening one has: a system call less for each.
  listening.setNoDelay(true);
  listening.onconnection = (status, handle) => {
    if (status !== 0) return lost();
    const options = { handle, allowHalfOpen: true, onread: onread ?? null };
    // The types know other handles than Node itself gives, and no `undefined` for "as before".
    take(new Socket(options as SocketConstructorOpts));
  };
}

/** Has a connected socket read into memory of ours from its next read on: those of TLS. */
export function readInto(socket: Socket, onread: ReadInto): void {
  const fields = socket as unknown as Record<symbol, unknown>;
  const first = onread.buffer() as Uint8Array;
  fields[KEYS.kBuffer] = first;
  fields[KEYS.kBufferCb] = onread.callback;
  fields[KEYS.kBufferGen] = onread.buffer;
  const { _handle: handle } = socket as Socket & { readonly _handle: ReadingHandle };
  handle.useUserBuffer(first);
}

/** Where a socket keeps what `onread` said: symbols of Node's own, found by their names. */
function keysOf<Name extends string>(...names: readonly Name[]): Record<Name, symbol> {
  const own = Object.getOwnPropertySymbols(new Socket());
  const found = names.map((name) => {
    const key = own.find(({ description }) => description === name);
    if (key === undefined) throw new Error(`sockets of Node ${process.version} have no ${name}`);
    return [name, key];
  });
  return Object.fromEntries(found) as Record<Name, symbol>;
}

const KEYS = keysOf("kBuffer", "kBufferCb", "kBufferGen");

/** What Node reads with. */
interface ReadingHandle {
  useUserBuffer(bytes: Uint8Array): void;
}

/** What Node listens with. */
interface ListeningHandle {
  onconnection: (status: number, handle: unknown) => void;
  setNoDelay(isOn: boolean): number;
}
