/** The other end of the admin socket: one request and its answers, for commands and tests. */
import { connect, type Socket } from "node:net";
import { errorText } from "#base/errors.ts";
import {
  AdminFrames,
  ANSWER_BYTES_MAX,
  encodeMessage,
  REQUEST_BYTES_MAX,
} from "./admin-messages.ts";
import { adminError } from "./errors.ts";

/** What came before the end of an answer. */
export type AdminReply =
  | { readonly kind: "log"; readonly level: string; readonly msg: string }
  | { readonly kind: "json"; readonly value: unknown };

/** Where to ask, and for how long. */
export interface AdminTarget {
  readonly path: string;
  /** Silence after which the request is given up, in ms. Default 60,000. */
  readonly silenceMs?: number;
}

/**
 * Sends a request in its wire form and yields what is answered, until `Success`. Throws
 * `ADMIN_UNREACHABLE` when nobody answers, `ADMIN_REFUSED` with the text of an `Error`.
 */
export async function* askAdmin(
  target: AdminTarget,
  request: unknown,
): AsyncGenerator<AdminReply, void> {
  const message = encodeMessage(request);
  if (message.length > REQUEST_BYTES_MAX) {
    const hint = "schema files may be named in db.schema_paths, for patina reload";
    const text = `a request of ${message.length} bytes; at most ${REQUEST_BYTES_MAX} are taken`;
    throw adminError("ADMIN_REFUSED", `${text}; ${hint}`);
  }
  const socket = connect(target.path);
  const silenceMs = target.silenceMs ?? SILENCE_MS;
  socket.setTimeout(silenceMs, () => {
    socket.destroy(new Error(`no answer within ${silenceMs} ms`));
  });
  socket.write(message);
  try {
    for await (const answer of answers(socket)) {
      if (answer === "Success") return;
      const reply = toReply(answer);
      if (reply !== null) yield reply;
    }
    throw new Error("the connection was closed before the end of the answer");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ADMIN_REFUSED") throw error;
    const hint = "is a replica running there? --admin-path names another";
    throw adminError("ADMIN_UNREACHABLE", `${target.path}: ${errorText(error)}; ${hint}`, error);
  } finally {
    socket.destroy();
  }
}

async function* answers(socket: Socket): AsyncGenerator {
  const frames = new AdminFrames(ANSWER_BYTES_MAX);
  for await (const chunk of socket) {
    frames.push(chunk as Uint8Array);
    for (;;) {
      const frame = frames.next();
      if (!frame.ok) throw new Error(frame.error);
      if (frame.value === null) break;
      yield JSON.parse(new TextDecoder().decode(frame.value));
    }
  }
}

function toReply(answer: unknown): AdminReply | null {
  const {
    Log,
    Json,
    Error: refusal,
  } = answer as {
    Log?: { level: string; msg: string };
    Json?: unknown;
    Error?: { msg: string };
  };
  if (refusal !== undefined) throw adminError("ADMIN_REFUSED", refusal.msg);
  if (Log !== undefined) return { kind: "log", level: Log.level, msg: Log.msg };
  // A `Json` of null is one all the same.
  return typeof answer === "object" && answer !== null && "Json" in answer
    ? { kind: "json", value: Json }
    : null;
}

/** Longer than the longest piece of work behind an answer. */
const SILENCE_MS = 60_000;
