/**
 * Accepts connections of a listening socket the short way: each becomes a socket that reads into
 * memory of ours (`onread`), which `net.Server` offers for outgoing connections only, and that has
 * no server to report to.
 *
 * It takes the place of one function of Node's that is not documented, `onconnection` of the
 * server's handle; Node is pinned, and all end-to-end tests of the engine come in through here.
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

/** What Node listens with. */
interface ListeningHandle {
  onconnection: (status: number, handle: unknown) => void;
  setNoDelay(isOn: boolean): number;
}
