/** Other people's programs: whether they are there, and in which version. */
import { spawnSync } from "node:child_process";

/** Whether a program is installed. `flag` makes it say something and end. */
export function has(program: string, flag: string): boolean {
  return spawnSync(program, [flag], { stdio: "ignore" }).error === undefined;
}

/** The first version number that a program prints; null when it is not installed. */
export function versionOf(program: string, flag: string): string | null {
  const { error, stdout, stderr } = spawnSync(program, [flag], { encoding: "utf8" });
  if (error !== undefined) return null;
  return /\d+\.\d+(?:\.\d+)?/.exec(`${stdout}${stderr}`)?.[0] ?? "unknown";
}
