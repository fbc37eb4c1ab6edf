/**
 * One finished request as a line of the access log: JSON, or the Common Log Format that every log
 * tool reads.
 */
import type { RequestSummary } from "../types.ts";

/** How a line is written. */
export type AccessLogFormat = "json" | "common";

/** One line with its end. `time` is as the format wants it: ISO 8601, or `commonTime`. */
export function accessLine(format: AccessLogFormat, summary: RequestSummary, time: string): string {
  return format === "json" ? jsonLine(summary, time) : commonLine(summary, time);
}

/**
 * `28/Nov/2026:01:02:03 +0000` from ISO 8601 in UTC. Always in UTC: local time jumps twice a year.
 */
export function commonTime(iso: string): string {
  const month = MONTHS[Number(iso.slice(5, 7)) - 1] ?? "";
  return `${iso.slice(8, 10)}/${month}/${iso.slice(0, 4)}:${iso.slice(11, 19)} +0000`;
}

function jsonLine(summary: RequestSummary, time: string): string {
  const { upstream } = summary;
  // A field without a value is left out.
  return `${JSON.stringify({
    time,
    id: summary.requestId,
    client: summary.clientAddress,
    method: summary.method,
    host: summary.host,
    target: summary.target,
    status: summary.status,
    error: summary.errorCode || undefined,
    cause: summary.cause || undefined,
    app: upstream?.appId,
    machine: upstream?.machineId,
    region: upstream?.region,
    rttMs: upstream === null ? undefined : round(upstream.rttMs),
    pick: summary.pickReason || undefined,
    attempts: summary.attempts,
    retry_skipped: summary.retrySkipped || undefined,
    reused: summary.wasReused,
    bytesIn: summary.bytesIn,
    bytesOut: summary.bytesOut,
    queueMs: round(summary.queueMs),
    connectMs: round(summary.connectMs),
    firstByteMs: round(summary.firstByteMs),
    durationMs: round(summary.durationMs),
  })}\n`;
}

function commonLine(summary: RequestSummary, time: string): string {
  const client = summary.clientAddress === "" ? "-" : summary.clientAddress;
  const request =
    summary.method === ""
      ? "-"
      : `${summary.method} ${summary.target} HTTP/1.${summary.httpMinor}`.replaceAll(
          /["\\]/g,
          "\\$&",
        );
  // A client that was gone before the answer: nginx writes 499, and log tools know it.
  const status = summary.status === 0 ? 499 : summary.status;
  return `${client} - - [${time}] "${request}" ${status} ${summary.bytesOut}\n`;
}

/** Microseconds are as fine as they mean anything. */
function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

const MONTHS = [
  "Jan",
  "Feb",
  "Mar",
  "Apr",
  "May",
  "Jun",
  "Jul",
  "Aug",
  "Sep",
  "Oct",
  "Nov",
  "Dec",
] as const;
