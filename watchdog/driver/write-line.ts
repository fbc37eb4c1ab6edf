/**
 * Writes to descriptors without Node's streams: in a worker thread `console` and `process.stderr`
 * go through the main thread, which may be the one that is stuck.
 */
import { writeSync } from "node:fs";

/** What became of a write. `gone` = the reader closed its end; `full` = it does not read. */
export type WriteOutcome = "written" | "full" | "gone" | "failed";

/** Writes all of `text` at once, or as much as the descriptor takes. Never throws. */
export function writeText(fd: number, text: string): WriteOutcome {
  try {
    let rest = Buffer.from(text);
    while (rest.length > 0) rest = rest.subarray(writeSync(fd, rest));
    return "written";
  } catch (error) {
    return outcomeOf(error);
  }
}

function outcomeOf(error: unknown): WriteOutcome {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "EAGAIN") return "full";
  return code === "EPIPE" || code === "EBADF" || code === "ECONNRESET" ? "gone" : "failed";
}
