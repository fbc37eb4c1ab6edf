/**
 * Field types that config sections share: addresses, ports, durations, paths, each with a message
 * that says what is allowed, so that every error of a config file can be told in one go.
 */
import { z } from "zod";
import { canonicalAddress } from "./core/swim/address.ts";
import type { Address } from "./types.ts";

const HOST_PORT = /^(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$/;

/** `192.0.2.1:8787`, `[::1]:8787` or `name:8787`; the port may be 0 where the system shall choose. */
export const hostPort = z
  .string()
  .regex(HOST_PORT, "host:port, with an IPv6 host in brackets")
  .refine((text) => Number(text.slice(text.lastIndexOf(":") + 1)) <= 65_535, "a port up to 65535");

/**
 * An IP address and port as replicas are known by, in canonical text; a name would say something
 * else to each who resolves it.
 */
export const ipPort = hostPort.transform((text, context): Address => {
  const address = canonicalAddress(text);
  if (address.ok) return address.value;
  context.addIssue({ code: "custom", message: "an IP address and port, not a name" });
  return z.NEVER;
});

/** Whole milliseconds from 1 to a day: longer timers would fire at once. */
export const milliseconds = z
  .int("whole milliseconds")
  .min(1, "at least 1 ms")
  .max(86_400_000, "at most 86400000 ms, a day");

/** A whole number from 0. */
export const wholeNumber = z.int("a whole number").min(0, "0 or more");

/** A name of a node, region or the like, as it stands in rows. */
export const name = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, "1 to 63 letters, digits, dots, dashes, underscores");

/** A name, or an empty text where there is none. */
export const nameOrNothing = z
  .string()
  .regex(
    /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$/,
    "nothing, or 1 to 63 letters, digits, dots, dashes, underscores",
  );

/** A file or folder; relative ones count from the config file's folder. */
export const path = z.string().min(1, "a path");
