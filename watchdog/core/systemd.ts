/**
 * What a service manager says in the environment, as systemd does: which sockets it has opened for us
 * (sd_listen_fds), and whether it wants to hear how we are (sd_notify, sd_watchdog_enabled).
 */
import { type Result, failure, success } from "#base/machine.ts";

/** Variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** A socket that was opened for us. */
export interface PassedSocket {
  /** `FileDescriptorName=` of its socket unit; by default that is the unit's own name. */
  readonly name: string;
  readonly fd: number;
}

/** The sockets passed to the process `pid`, in their order; none where they are for another one. */
export function passedSockets(environment: Environment, pid: number): readonly PassedSocket[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = "" } = environment;
  const count = Number(LISTEN_FDS);
  if (Number(LISTEN_PID) !== pid || !Number.isSafeInteger(count) || count < 1) return [];
  const names = LISTEN_FDNAMES.split(":");
  return Array.from({ length: Math.min(count, SOCKETS_MAX) }, (_, at) => ({
    name: names[at] ?? "",
    fd: FIRST_SOCKET + at,
  }));
}

/**
 * Gives each listening address the sockets of its name; a single socket is that of a single address,
 * whatever its name. An address without any is opened by ourselves. The failure is one line.
 */
export function assignSockets(
  passed: readonly PassedSocket[],
  names: readonly string[],
): Result<ReadonlyMap<string, readonly number[]>, string> {
  const [first] = passed;
  const [only] = names;
  if (passed.length === 1 && names.length === 1 && first && only !== undefined) {
    return success(new Map([[only, [first.fd]]]));
  }
  const byName = new Map<string, number[]>();
  for (const { name, fd } of passed) {
    if (!names.includes(name)) {
      const known = names.length === 0 ? "listens nowhere" : `knows ${names.join(" and ")}`;
      return failure(
        `the service manager passed a socket named "${name}", and this process ${known}:` +
          " set FileDescriptorName= in its socket unit",
      );
    }
    byName.set(name, [...(byName.get(name) ?? []), fd]);
  }
  return success(byName);
}

/** How often the service manager wants a sign of life, in milliseconds: twice as often as it must. */
export function watchdogPeriodMs(environment: Environment, pid: number): number | null {
  const { WATCHDOG_USEC, WATCHDOG_PID } = environment;
  const limitMs = Number(WATCHDOG_USEC) / 1000;
  const isOurs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === pid;
  if (!isOurs || !Number.isFinite(limitMs) || limitMs <= 0) return null;
  return Math.max(limitMs / 2, PERIOD_MIN_MS);
}

/** Descriptors before it are standard input, output and error. */
const FIRST_SOCKET = 3;
/** Arbitrary; more is a mistake. */
const SOCKETS_MAX = 64;
/** Each sign of life starts a program. */
const PERIOD_MIN_MS = 50;
