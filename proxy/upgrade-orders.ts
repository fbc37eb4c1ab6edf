/**
 * What the supervisor asks of an edge process at an upgrade: lines on standard input, carried out one
 * after the other, and answered on the pipe that beats go through (`watchdog/core/pipe-lines.ts`).
 */
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

/** What is done on each order. */
export interface OrderHandlers {
  /** Give up what two processes cannot share. */
  handOver(): Promise<void>;
  /** Take it back, as it was before `handOver`. */
  resume(): Promise<void>;
  /** A process that stood by serves from here on. */
  takeOver(): Promise<void>;
}

/** Carries out orders until the input ends; what fails goes to `onFailure`. */
export function followOrders(
  input: Readable,
  handlers: OrderHandlers,
  onFailure: (error: unknown) => void,
): void {
  let last: Promise<void> = Promise.resolve();
  createInterface({ input }).on("line", (line) => {
    const order = ORDERS.find((one) => one === line);
    if (order !== undefined) last = last.then(() => handlers[order]()).catch(onFailure);
  });
}

const ORDERS = ["handOver", "resume", "takeOver"] as const;
