/** `patina demo`: a small platform on this machine, and a tour of what Patina does in it. */
import { existsSync, readdirSync } from "node:fs";
import { confirm } from "../confirm.ts";
import { Platform } from "../demo/platform.ts";
import { HOSTS, MACHINES, Tour, type StepResult } from "../demo/tour.ts";
import { View } from "../demo/view.ts";

/** Runs the demo. With `once` it ends after the tour, with exit code 1 when a step failed. */
export async function demo(options: {
  once?: boolean;
  keep?: boolean;
  folder: string;
  yes?: boolean;
}): Promise<void> {
  if (isForeign(options.folder)) {
    const plan = `this wipes ${options.folder}, which no demo has made`;
    await confirm(plan, options);
  }
  const view = new View();
  const startedMs = performance.now();
  view.line("Starting 3 PoPs, 4 worker hosts and 3 machines on loopback ...");
  const platform = await Platform.create({
    folder: options.folder,
    hosts: HOSTS,
    machines: MACHINES,
    onEvent: (line) => view.event(line),
  });
  const interrupted = onceInterrupted();
  const tour = new Tour(platform, (result) => view.step(result));
  try {
    await tour.start();
    view.event(`all hosts ready, traffic runs`);
    if (!options.once) view.start(platform, () => tour.trafficByPop.values());
    await Promise.race([tour.run(), interrupted]);
    if (!options.once) {
      for (const line of invitation(platform)) view.line(line);
      await interrupted;
    }
  } finally {
    view.stop();
    await tour.stop();
    if (options.once) tour.account();
    await platform.stop({ keep: options.keep === true });
  }
  if (options.once) process.exitCode = summarise(tour.results, view, startedMs);
}

/** Whether there is something in a folder that is not of a demo. */
function isForeign(folder: string): boolean {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  return names.length > 0 && !HOSTS.some(({ name }) => names.includes(name));
}

function summarise(results: readonly StepResult[], view: View, startedMs: number): number {
  const passed = results.filter((result) => result.faults.length === 0).length;
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  view.line(`${passed} of ${results.length} steps passed, ${seconds} s`);
  return passed === results.length && results.length > 0 ? 0 : 1;
}

function invitation(platform: Platform): string[] {
  const edges = [...platform.hosts.values()].filter((host) => host.kind === "edge");
  return [
    "Try it (Ctrl-C ends the demo):",
    ...edges.map(
      (host) => `  curl -si -H 'Host: ${platform.hostname}' http://127.0.0.1:${host.httpPort}/`,
    ),
    `  curl -s http://127.0.0.1:${edges[0]?.metricsPort}/metrics`,
  ];
}

/** Resolves at the first SIGINT or SIGTERM. */
function onceInterrupted(): Promise<void> {
  return new Promise((resolve) => {
    // Not `once`: a library that puts the cursor back at a signal would find itself alone, and
    // end the process before the platform is stopped.
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => resolve());
  });
}
