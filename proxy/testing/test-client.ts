/**
 * A client that writes bytes and reads responses, for tests: it parses with simple string functions
 * of its own, so that the engine is not judged by its own parser.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** One response as it was read. */
export interface TestResponse {
  readonly status: number;
  /** Lower-case names; repeated ones joined with `, `. */
  readonly headers: ReadonlyMap<string, string>;
  readonly bytes: Buffer;
  /** `bytes` as Latin-1; chunked bodies decoded. */
  readonly body: string;
}

/** One connection. */
export class TestClient {
  readonly socket: Socket;
  #received: Buffer[] = [];
  #length = 0;
  #hasEnded = false;
  #error: Error | null = null;
  #wake: () => void = () => undefined;

  static async connect(port: number): Promise<TestClient> {
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
    const client = new TestClient(socket);
    await once(socket, "connect");
    return client;
  }

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#received.push(bytes);
      this.#length += bytes.length;
      this.#wake();
    });
    socket.on("end", () => {
      this.#hasEnded = true;
      this.#wake();
    });
    socket.on("error", (error) => {
      this.#error = error;
      this.#wake();
    });
  }

  write(bytes: string | Buffer): void {
    this.socket.write(bytes);
  }

  /** Reads one response; interim ones too. */
  async response(options: { isHead?: boolean } = {}): Promise<TestResponse> {
    const headEnd = await this.#find((bytes) => {
      const at = bytes.indexOf("\r\n\r\n");
      return at < 0 ? -1 : at + 4;
    });
    const [line = "", ...fields] = this.#take(headEnd).toString("latin1").trimEnd().split("\r\n");
    const status = Number(line.split(" ")[1]);
    const headers = new Map<string, string>();
    for (const field of fields) {
      const name = field.slice(0, field.indexOf(":")).toLowerCase();
      const value = field.slice(field.indexOf(":") + 1).trim();
      headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value);
    }
    const isBodiless = options.isHead || status < 200 || status === 204 || status === 304;
    const bytes = isBodiless ? Buffer.alloc(0) : await this.#body(headers);
    return { status, headers, bytes, body: bytes.toString("latin1") };
  }

  /** Everything up to and including a text; it is taken out. */
  async until(text: string): Promise<string> {
    const end = await this.#find((bytes) => {
      const at = bytes.indexOf(text);
      return at < 0 ? -1 : at + text.length;
    });
    return this.#take(end).toString("latin1");
  }

  /** What is left until the other side ends; rejects if it resets. */
  async ended(): Promise<Buffer> {
    while (!this.#hasEnded) await this.#more();
    return this.#take(this.#length);
  }

  /** What is left until the connection is closed, in whichever way. */
  async closed(): Promise<string> {
    while (!this.#hasEnded && this.#error === null) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    return this.#take(this.#length).toString("latin1");
  }

  /** Waits for a reset. */
  async broken(): Promise<void> {
    while (this.#error === null) {
      if (this.#hasEnded) throw new Error("the connection ended as if all were well");
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #body(headers: ReadonlyMap<string, string>): Promise<Buffer> {
    const length = headers.get("content-length");
    if (length !== undefined) {
      await this.#find(() => (this.#length >= Number(length) ? 0 : -1));
      return this.#take(Number(length));
    }
    if (headers.get("transfer-encoding") !== "chunked") return this.ended();
    const parts: Buffer[] = [];
    for (;;) {
      const size = parseInt(await this.until("\r\n"), 16);
      if (size === 0) {
        while ((await this.until("\r\n")) !== "\r\n");
        return Buffer.concat(parts);
      }
      await this.#find(() => (this.#length >= size + 2 ? 0 : -1));
      parts.push(this.#take(size));
      this.#take(2);
    }
  }

  /** Waits until `place` finds something in all that was received. */
  async #find(place: (bytes: Buffer) => number): Promise<number> {
    for (;;) {
      const at = place(this.#joined());
      if (at >= 0) return at;
      if (this.#hasEnded) throw new Error(`ended after: ${this.#joined().toString("latin1")}`);
      await this.#more();
    }
  }

  async #more(): Promise<void> {
    if (this.#error !== null) throw this.#error;
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  #joined(): Buffer {
    // Long bodies arrive in many pieces: joining only while they are short keeps this linear.
    if (this.#length > 1_000_000) return this.#received[0] ?? Buffer.alloc(0);
    this.#received = [Buffer.concat(this.#received)];
    return this.#received[0] as Buffer;
  }

  #take(length: number): Buffer {
    const all = Buffer.concat(this.#received);
    this.#received = [all.subarray(length)];
    this.#length = all.length - length;
    return all.subarray(0, length);
  }
}
