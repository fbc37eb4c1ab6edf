/** `patina debug decode`: a message's bytes as JSON. */
import { readFileSync } from "node:fs";
import { PatinaError } from "#base/errors.ts";
import { messageToJson, type MessageKind } from "../../replica/driver/admin/message-json.ts";

/** Decodes hexadecimal text, or with `-` that on standard input; blanks do not matter. */
export function decode(kind: string, text: string): void {
  if (kind !== "swim" && kind !== "broadcast" && kind !== "sync") {
    throw new PatinaError("USAGE", `${kind}: one of swim, broadcast, sync`);
  }
  const bytes = bytesFrom(text === "-" ? readFileSync(0, "utf8") : text);
  const message = messageToJson(kind satisfies MessageKind, bytes);
  if (!message.ok) throw new PatinaError("USAGE", `no ${kind} message: ${message.error}`);
  process.stdout.write(`${JSON.stringify(message.value, null, 2)}\n`);
}

function bytesFrom(text: string): Uint8Array {
  const digits = text.replaceAll(/\s/g, "");
  if (digits === "" || digits.length % 2 === 1 || /[^0-9a-fA-F]/.test(digits)) {
    throw new PatinaError("USAGE", "an even number of hexadecimal digits is expected");
  }
  return new Uint8Array(Buffer.from(digits, "hex"));
}
