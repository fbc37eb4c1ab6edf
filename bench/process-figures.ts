/**
 * What the kernel and the metrics port say of a process: CPU time, resident memory, counters.
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { request } from "undici";

/** User and system time of a process with all its threads, in ms; steps of 10 ms. */
export function cpuTimeMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name may hold spaces: fields are counted from behind it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
}

/** Resident memory in MiB: of this moment, and the most there ever was. */
export function residentMemory(pid: number): { readonly nowMiB: number; readonly maxMiB: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
  return { nowMiB: field("VmRSS"), maxMiB: field("VmHWM") };
}

/** Pids of the processes that a process has started and that still run. */
export function childrenOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8")
      .trim()
      .split(" ")
      .filter((text) => text !== "")
      .map(Number),
  );
}

/** Values of unlabelled metrics by name; they are as much as a second old. */
export async function readMetrics(metricsPort: number): Promise<ReadonlyMap<string, number>> {
  const response = await request(`http://127.0.0.1:${metricsPort}/metrics`);
  const text = await response.body.text();
  const valueByName = new Map<string, number>();
  for (const line of text.split("\n")) {
    const [name = "", value] = line.split(" ");
    if (!line.startsWith("#") && value !== undefined) valueByName.set(name, Number(value));
  }
  return valueByName;
}

/** What a replica has sent over UDP: payload and packets. */
export interface Sent {
  readonly payloadBytes: number;
  readonly packets: number;
}

/** Since the replica's start; as much as a second old. */
export async function readSent(metricsPort: number): Promise<Sent> {
  const metrics = await readMetrics(metricsPort);
  return {
    payloadBytes: metrics.get("patina_quic_sent_bytes_total") ?? Number.NaN,
    packets: metrics.get("patina_quic_packets_sent_total") ?? Number.NaN,
  };
}

/** Bytes on the wire of all between two readings: payload, and 28 of headers for each packet. */
export function wireBytes(before: readonly Sent[], after: readonly Sent[]): number {
  const bytesOf = (sent: Sent): number => sent.payloadBytes + HEADER_BYTES * sent.packets;
  const total = (all: readonly Sent[]): number => all.reduce((sum, sent) => sum + bytesOf(sent), 0);
  return total(after) - total(before);
}

/** IPv4 (20) and UDP (8). */
const HEADER_BYTES = 28;
const TICKS_PER_SECOND = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));
