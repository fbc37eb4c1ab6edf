/**
 * Error codes of the watchdog.
 *
 * | Code              | Meaning                                   | Effect on state | Retry | HTTP |
 * |-------------------|-------------------------------------------|-----------------|-------|------|
 * | `WATCHDOG_LISTEN` | the health and metrics port is not to be  | watched all the | no    | none |
 * |                   | had (`details.cause` = system's code)     | same, not served|       |      |
 */

/** The codes this folder throws `PatinaError` with. */
export const WATCHDOG_LISTEN = "WATCHDOG_LISTEN";
