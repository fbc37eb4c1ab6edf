/** The admin socket of a running replica: its server with the commands behind it. */
import type { Logger } from "#base/logger.ts";
import { performAdmin, type AdminContext, type AdminSurroundings } from "./admin-commands.ts";
import { AdminServer, SOCKET_PATH_BYTES_MAX } from "./admin-server.ts";

/** Where a replica's admin socket is, and what stands behind some of its requests. */
export interface AdminOptions extends AdminSurroundings {
  /** Path of the socket. */
  readonly path: string;
  /** Nobody asked for this path: when it is too long for a socket, the replica goes without. */
  readonly isDefaultPath: boolean;
}

/** Binds and serves. Null when there is no socket to be; rejects with `ADMIN_BIND`. */
export async function openAdmin(
  options: AdminOptions,
  context: Omit<AdminContext, keyof AdminSurroundings> & { readonly log: Logger },
): Promise<AdminServer | null> {
  const { path, isDefaultPath, ...surroundings } = options;
  const { log, ...parts } = context;
  if (isDefaultPath && Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    log.warn?.("admin-off", `no admin socket: ${path} is too long; set admin.path`);
    return null;
  }
  const all: AdminContext = { ...parts, ...surroundings };
  const server = new AdminServer({ path, log, handler: (request) => performAdmin(all, request) });
  await server.listen();
  return server;
}
