/**
 * A load generator for where wrk is not installed: keep-alive connections, one GET after the other
 * on each, answers with a Content-Length.
 *
 * Arguments: port, connections, seconds, Host header. Prints `{requests, failures, seconds}`.
 */
import { connect, type Socket } from "node:net";

const [port = 0, connections = 0, seconds = 0] = process.argv.slice(2, 5).map(Number);
const REQUEST = Buffer.from(`GET / HTTP/1.1\r\nHost: ${process.argv[5]}\r\n\r\n`);
const counts = { requests: 0, failures: 0 };
const startMs = performance.now();
const deadlineMs = startMs + seconds * 1_000;
let open = connections;
for (let at = 0; at < connections; at++) drive(connect({ port, host: "127.0.0.1", noDelay: true }));

function drive(socket: Socket): void {
  let text = "";
  socket.once("connect", () => socket.write(REQUEST));
  socket.on("error", () => counts.failures++);
  socket.once("close", () => {
    if (--open === 0) finish();
  });
  socket.on("data", (bytes) => {
    text += bytes.toString("latin1");
    const headEnd = text.indexOf("\r\n\r\n");
    if (headEnd === -1) return;
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(text)?.[1] ?? Number.NaN);
    if (text.length < headEnd + 4 + length) return;
    if (text.startsWith("HTTP/1.1 200")) counts.requests++;
    else counts.failures++;
    text = "";
    if (performance.now() >= deadlineMs) socket.end();
    else socket.write(REQUEST);
  });
}

function finish(): void {
  const took = (performance.now() - startMs) / 1_000;
  process.stdout.write(`${JSON.stringify({ ...counts, seconds: took })}\n`);
}
