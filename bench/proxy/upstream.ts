/**
 * A machine in Node, as cheap as one can be: GETs get a body by their path, POSTs an empty answer
 * once their body has been read whole, WebSocket frames come back. It stands behind the proxies for
 * POSTs and WebSocket, where nginx answers before it has read, and for GETs where there is no nginx.
 *
 * It trusts its peers: heads are what the load generator and the proxies write, frames are masked
 * and shorter than 126 bytes. Prints its port once it listens.
 */
import { createHash } from "node:crypto";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { BODY_BYTES_BY_PATH } from "./cases.ts";

/** What a connection is in the middle of. */
type Phase = "head" | "body" | "chunked" | "websocket";

class Connection {
  readonly #socket: Socket;
  #rest: Buffer = EMPTY;
  #phase: Phase = "head";
  #bodyLeft = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("error", () => socket.destroy());
    socket.on("data", (bytes: Buffer) => this.#onData(bytes));
  }

  #onData(bytes: Buffer): void {
    let data = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    for (;;) {
      const used = this.#take(data);
      if (used === 0) break;
      data = data.subarray(used);
    }
    this.#rest = data;
  }

  /** Bytes that were used; 0 = more are needed. */
  #take(data: Buffer): number {
    switch (this.#phase) {
      case "head":
        return this.#takeHead(data);
      case "body": {
        const used = Math.min(this.#bodyLeft, data.length);
        this.#bodyLeft -= used;
        if (used > 0 && this.#bodyLeft === 0) this.#answer(EMPTY_ANSWER);
        return used;
      }
      case "chunked": {
        const end = data.indexOf(LAST_CHUNK);
        if (end === -1) {
          // The last chunk's mark may have begun in these bytes.
          return Math.max(data.length - LAST_CHUNK.length, 0);
        }
        this.#answer(EMPTY_ANSWER);
        return end + LAST_CHUNK.length;
      }
      case "websocket":
        return this.#takeFrame(data);
    }
  }

  #takeHead(data: Buffer): number {
    const end = data.indexOf(HEAD_END);
    if (end === -1) return 0;
    const head = data.toString("latin1", 0, end);
    if (head.startsWith("GET ")) {
      const key = /\r\nsec-websocket-key: *(\S+)/i.exec(head)?.[1];
      if (key !== undefined) this.#upgrade(key);
      else this.#answer(ANSWER_BY_PATH.get(head.slice(4, head.indexOf(" ", 4))) ?? EMPTY_ANSWER);
      return end + HEAD_END.length;
    }
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (length === undefined) this.#phase = "chunked";
    else if (Number(length) === 0) this.#answer(EMPTY_ANSWER);
    else {
      this.#phase = "body";
      this.#bodyLeft = Number(length);
    }
    return end + HEAD_END.length;
  }

  #answer(answer: Buffer): void {
    this.#phase = "head";
    this.#socket.write(answer);
  }

  #upgrade(key: string): void {
    const accept = createHash("sha1").update(`${key}${WEBSOCKET_GUID}`).digest("base64");
    this.#phase = "websocket";
    this.#socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
  }

  /** Layout: [fin and opcode | 0x80 + length | mask(4) | masked payload]. */
  #takeFrame(data: Buffer): number {
    if (data.length < 2) return 0;
    const length = (data[1] as number) & 0x7f;
    const total = 6 + length;
    if (data.length < total) return 0;
    const frame = Buffer.allocUnsafe(2 + length);
    frame[0] = data[0] as number;
    frame[1] = length;
    for (let at = 0; at < length; at++) {
      frame[2 + at] = (data[6 + at] as number) ^ (data[2 + (at & 3)] as number);
    }
    this.#socket.write(frame);
    return total;
  }
}

const EMPTY = Buffer.alloc(0);
const HEAD_END = "\r\n\r\n";
const LAST_CHUNK = "0\r\n\r\n";
const EMPTY_ANSWER = Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
/** RFC 6455, section 1.3. */
const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const ANSWER_BY_PATH: ReadonlyMap<string, Buffer> = new Map(
  Object.entries(BODY_BYTES_BY_PATH).map(([path, bytes]) => [
    path,
    Buffer.concat([
      Buffer.from(
        `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${bytes}\r\n\r\n`,
      ),
      Buffer.alloc(bytes, "x"),
    ]),
  ]),
);

const server = createServer({ noDelay: true }, (socket) => void new Connection(socket));
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
process.on("SIGTERM", () => process.exit(0));
