/** Commands that are one request on the admin socket: answers to stdout, remarks to stderr. */
import { askAdmin } from "../../replica/driver/admin/admin-client.ts";
import { adminTarget, type GlobalOptions } from "../targets.ts";

/** Sends a request in its wire form; prints each answer as JSON, as Corrosion does. */
export async function tellReplica(request: unknown, options: GlobalOptions): Promise<void> {
  for await (const reply of askAdmin({ path: adminTarget(options) }, request)) {
    if (reply.kind === "json") process.stdout.write(`${JSON.stringify(reply.value, null, 2)}\n`);
    else process.stderr.write(`${reply.msg}\n`);
  }
}

/** Sends a request that is answered by one value, and returns it. */
export async function askReplica(request: unknown, options: GlobalOptions): Promise<unknown> {
  let value: unknown = null;
  for await (const reply of askAdmin({ path: adminTarget(options) }, request)) {
    if (reply.kind === "json") value = reply.value;
  }
  return value;
}
