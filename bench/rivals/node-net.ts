/**
 * No proxy: the least that a Node process does for a connection and a request. It accepts, looks for
 * the end of a head, and answers with no body. What a proxy in Node cannot go below, and the
 * socket whose memory idle connections are compared with.
 */
import { readFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { announce, spec } from "./node-rival.ts";

const ANSWER = Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
const CLOSING = Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
const HEAD_END = "\r\n\r\n";

const plain = createServer({ noDelay: true }, answer);
const secure = createTlsServer(
  { cert: readFileSync(spec.certFile), key: readFileSync(spec.keyFile) },
  answer,
);
announce(plain, secure);

function answer(socket: Socket): void {
  let rest = "";
  socket.on("error", () => socket.destroy());
  socket.on("data", (bytes) => {
    const heads = (rest + bytes.toString("latin1")).split(HEAD_END);
    rest = heads.pop() ?? "";
    for (const head of heads) {
      if (head.includes("\r\nConnection: close")) socket.end(CLOSING);
      else socket.write(ANSWER);
    }
  });
}
