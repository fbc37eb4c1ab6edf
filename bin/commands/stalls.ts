/** `patina stalls`: the evidence that the watchdog left. */
import { PatinaError } from "#base/errors.ts";
import { listStalls, readStall } from "../../watchdog/driver/stall-files.ts";
import { loadConfig, stateFolderOf } from "../config-file.ts";

/** Lists stalls, newest first, or prints one as JSON. */
export function stalls(id: string | undefined, options: { config: string }): void {
  const { config } = loadConfig({
    file: options.config,
    environment: process.env,
    mode: "agent",
  });
  const folder = stateFolderOf(config);
  if (id === undefined) {
    const all = listStalls(folder);
    for (const one of all) process.stdout.write(`${summary(folder, one)}\n`);
    if (all.length === 0) process.stderr.write(`no stalls in ${folder}\n`);
    return;
  }
  const evidence = readStall(folder, id);
  if (!evidence.ok) throw new PatinaError("USAGE", evidence.error);
  process.stdout.write(`${JSON.stringify(evidence.value, null, 2)}\n`);
}

function summary(folder: string, id: string): string {
  const evidence = readStall(folder, id);
  if (!evidence.ok) return `${id}  unreadable: ${evidence.error}`;
  const { kind, loop, silentMs } = evidence.value;
  return `${id}  ${kind} of ${loop}, silent ${silentMs} ms`;
}
