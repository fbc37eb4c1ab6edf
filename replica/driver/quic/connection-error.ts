/**
 * Why a quiche connection ended, as an error of ours.
 *
 * TLS alerts travel as QUIC error codes 0x100 + alert (RFC 9001, section 4.8); the side that
 * refuses a certificate names its reason that way to the other.
 */
import { PatinaError } from "#base/errors.ts";
import { TRANSPORT_CLOSED, TRANSPORT_CONNECT, TRANSPORT_TLS } from "./errors.ts";
import type { EngineConnection } from "./engine.ts";

/**
 * QUIC error code of "bad certificate", sent when a certificate does not name the dialled address.
 */
export const BAD_CERTIFICATE = 0x100 + 42;

/** Explains a connection that is draining or closed. */
export function explainClose(native: EngineConnection, wasOpen: boolean): PatinaError {
  const code = wasOpen ? TRANSPORT_CLOSED : TRANSPORT_CONNECT;
  for (const side of ["local", "peer"] as const) {
    const error = side === "local" ? native.localError() : native.peerError();
    if (error === null) continue;
    const text = Buffer.from(error.reason).toString("utf8").slice(0, REASON_CHARACTERS_MAX);
    const alert = error.isApp ? -1 : error.errorCode - CRYPTO_ERROR_START;
    if (alert >= 0 && alert < 256) {
      const name = ALERT_NAMES.get(alert) ?? `TLS alert ${alert}`;
      const reason = `${WHO[side]}: ${name}${text === "" ? "" : ` (${text})`}`;
      return new PatinaError(TRANSPORT_TLS, reason, { details: { reason, side, alert } });
    }
    const kind = error.isApp ? "application" : "transport";
    const reason = `closed by ${side} side, ${kind} code ${error.errorCode}: ${text}`;
    return new PatinaError(code, reason, { details: { reason, side, errorCode: error.errorCode } });
  }
  const silent = wasOpen ? "idle timeout" : "no answer";
  const reason = native.isTimedOut() ? silent : "the peer no longer knows the connection";
  return new PatinaError(code, reason, { details: { reason } });
}

/** A dial that took too long. */
export function noAnswerError(timeoutMs: number): PatinaError {
  const reason = `no answer within ${timeoutMs} ms`;
  return new PatinaError(TRANSPORT_CONNECT, reason, { details: { reason, timeoutMs } });
}

const CRYPTO_ERROR_START = 0x100;
/** A peer chooses this text; enough to read in a log line. */
const REASON_CHARACTERS_MAX = 200;
const WHO = { local: "peer's certificate or handshake refused", peer: "refused by the peer" };
/** RFC 8446, section 6, as far as certificates go. */
const ALERT_NAMES: ReadonlyMap<number, string> = new Map([
  [40, "handshake failure"],
  [42, "bad certificate"],
  [43, "unsupported certificate"],
  [44, "certificate revoked"],
  [45, "certificate expired"],
  [46, "certificate unknown"],
  [48, "unknown authority"],
  [51, "bad signature"],
  [70, "protocol version"],
  [116, "certificate required"],
  [120, "no common application protocol"],
]);
