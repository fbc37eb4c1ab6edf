/**
 * Other people's programs and scripts of ours as children: starting them on a core, waiting for what
 * they print, ending them with the benchmark.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { endProcess } from "../local-cluster.ts";
import { pinnedTo } from "./pinning.ts";

/** How to start a child. */
export interface StartOptions {
  readonly stack: AsyncDisposableStack;
  readonly cores: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stderr?: "ignore" | "inherit";
}

/** Starts a command, pinned; it is ended with the stack. */
export function start(command: readonly string[], options: StartOptions): ChildProcess {
  const { stack, cores } = options;
  if (stack.disposed) throw new Error("the benchmark has been ended");
  const [program = "", ...args] = [...pinnedTo(cores), ...command];
  const child = spawn(program, args, {
    stdio: ["ignore", "pipe", options.stderr ?? "inherit"],
    env: { ...process.env, ...options.env },
  });
  stack.defer(() => endProcess(child));
  return child;
}

/** Starts a command and waits for its first line of output. */
export async function startUntilLine(
  command: readonly string[],
  options: StartOptions,
): Promise<{ readonly child: ChildProcess; readonly line: string }> {
  const child = start(command, options);
  if (child.stdout === null) throw new Error("a child's output is piped");
  const line = await Promise.race([
    once(createInterface({ input: child.stdout }), "line").then(([text]) => String(text)),
    once(child, "exit").then(([code]) => {
      throw new Error(`${command.join(" ")} ended with ${String(code)} before it said anything`);
    }),
  ]);
  return { child, line };
}

/** Runs a command, pinned, to its end; its standard output. */
export async function outputOf(
  command: readonly string[],
  options: Omit<StartOptions, "stack">,
): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const child = start(command, { ...options, stack });
  let text = "";
  child.stdout?.on("data", (bytes: Buffer) => (text += bytes.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`${command[0]} ended with ${code}: ${text}`);
  return text;
}
