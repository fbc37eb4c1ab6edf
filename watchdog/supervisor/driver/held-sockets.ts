/**
 * Opens the listening sockets that outlive every edge process.
 *
 * Each socket is held by a thread of its own (`hold-socket-thread.ts`). Several sockets on one
 * address form an SO_REUSEPORT group, over which the kernel spreads connections. Such a group would
 * let a second Patina of the same user join in silently, so the address is first bound without it.
 * Where the system has no such groups, all threads accept from one socket.
 */
import { once } from "node:events";
import { type ListenOptions, type Server, createServer, isIPv6 } from "node:net";
import { Worker } from "node:worker_threads";
import { type Result, failure, success } from "#base/machine.ts";
import { EXIT } from "../exit-codes.ts";
import type { ListenConfig } from "../supervisor-config.ts";

/** One open listening socket. */
export interface HeldSocket {
  readonly name: string;
  readonly host: string;
  /** As bound, also where the config says 0. */
  readonly port: number;
  /** Descriptor in this process. */
  readonly fd: number;
}

/** Why a socket could not be opened: one line, and the exit code for it. */
export interface HoldFailure {
  readonly message: string;
  readonly exitCode: number;
}

/**
 * Opens all sockets; the order is that of the config, groups side by side. Those that a service
 * manager has opened are taken as they are, by name: their threads share them in turn.
 */
export async function holdSockets(
  listen: readonly ListenConfig[],
  passed: ReadonlyMap<string, readonly number[]> = new Map(),
): Promise<Result<readonly HeldSocket[], HoldFailure>> {
  const groups = await Promise.all(
    listen.map(async (one) => {
      const fds = passed.get(one.name);
      if (fds !== undefined) return success(passedGroup(one, fds));
      return await holdGroup(one, isIpv6Only(one, listen));
    }),
  );
  const held: HeldSocket[] = [];
  for (const group of groups) {
    if (!group.ok) return group;
    held.push(...group.value);
  }
  return success(held);
}

/**
 * `fds` is not empty. The addresses are the service manager's: what the config says is where they
 * should be.
 */
function passedGroup(config: ListenConfig, fds: readonly number[]): readonly HeldSocket[] {
  const { name, host, port, sockets = 1 } = config;
  const count = Math.max(sockets, fds.length);
  return Array.from({ length: count }, (_, at) => ({
    name,
    host,
    port,
    fd: fds[at % fds.length] ?? 0,
  }));
}

/** `[::]:80` would take the IPv4 address of the same port with it. */
function isIpv6Only(one: ListenConfig, listen: readonly ListenConfig[]): boolean {
  if (!isIPv6(one.host)) return false;
  const hasIpv4 = listen.some((other) => other.port === one.port && !isIPv6(other.host));
  return one.isIpv6Only ?? (hasIpv4 && one.port !== 0);
}

async function holdGroup(
  config: ListenConfig,
  ipv6Only: boolean,
): Promise<Result<readonly HeldSocket[], HoldFailure>> {
  const { host, port, sockets = 1 } = config;
  const options: ListenOptions = { host, port, ipv6Only, backlog: BACKLOG };
  if (sockets === 1 || config.isShared === true) return await holdShared(config, options);
  const reserved = await reserve(options);
  if (!reserved.ok) return failure(explain(config, reserved.error));
  const bound = { ...options, port: reserved.value };
  const grouped = { ...bound, reusePort: true };
  const group = await Promise.all(Array.from({ length: sockets }, () => holdOne(config, grouped)));
  const held: HeldSocket[] = [];
  for (const one of group) {
    if (one.ok) held.push(one.value);
    // The system knows no SO_REUSEPORT groups.
    else if (one.error.code === "ENOTSUP") return await holdShared(config, bound);
    else return failure(explain(config, one.error));
  }
  return success(held);
}

/** One socket, which stands for all of the group. */
async function holdShared(
  config: ListenConfig,
  options: ListenOptions,
): Promise<Result<readonly HeldSocket[], HoldFailure>> {
  const one = await holdOne(config, options);
  if (!one.ok) return failure(explain(config, one.error));
  return success(Array.from({ length: config.sockets ?? 1 }, () => one.value));
}

/** Binds without SO_REUSEPORT to find out whether somebody else has the address, and its port. */
async function reserve(options: ListenOptions): Promise<Result<number, NodeJS.ErrnoException>> {
  const server: Server = createServer();
  try {
    server.listen(options);
    await once(server, "listening");
  } catch (error) {
    return failure(error as NodeJS.ErrnoException);
  }
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  server.close();
  await once(server, "close");
  return success(port);
}

async function holdOne(
  config: ListenConfig,
  options: ListenOptions,
): Promise<Result<HeldSocket, Extract<HoldReply, { kind: "failed" }>>> {
  const url = new URL("./hold-socket-thread.ts", import.meta.url);
  const worker = new Worker(url, { name: "held-socket", workerData: options });
  const [reply] = (await once(worker, "message")) as [HoldReply];
  if (reply.kind === "failed") return failure(reply);
  return success({ name: config.name, host: config.host, port: reply.port, fd: reply.fd });
}

type HoldReply =
  | { readonly kind: "held"; readonly fd: number; readonly port: number }
  | { readonly kind: "failed"; readonly code: string; readonly message: string };

function explain(
  { name, host, port }: ListenConfig,
  error: { readonly code?: string | undefined; readonly message: string },
): HoldFailure {
  const where = `cannot listen on ${isIPv6(host) ? `[${host}]` : host}:${port} (${name})`;
  switch (error.code) {
    case "EADDRINUSE":
      return { message: `${where}: the port is in use`, exitCode: EXIT.portInUse };
    case "EACCES":
      return { message: `${where}: not permitted to this user`, exitCode: EXIT.config };
    case "EADDRNOTAVAIL":
      return { message: `${where}: this host has no such address`, exitCode: EXIT.config };
    default:
      return { message: `${where}: ${error.message}`, exitCode: EXIT.config };
  }
}

/** Room for the connections of a bounce; the kernel caps it at net.core.somaxconn. */
const BACKLOG = 4096;
