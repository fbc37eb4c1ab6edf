/**
 * A machine that answers every request with the same 49-byte body, as cheaply as Node can: it looks
 * for the end of a head and nothing else, so GETs without a body are all it understands.
 *
 * Argument: port, 0 = any. Prints the port on standard output once it listens.
 */
import { createServer, type AddressInfo } from "node:net";

const BODY = '{"machine":"machine-0","region":"lo","n":"....."}';
const ANSWER = Buffer.from(
  `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`,
);
const HEAD_END = "\r\n\r\n";

const server = createServer({ noDelay: true }, (socket) => {
  let rest = "";
  socket.on("error", () => socket.destroy());
  socket.on("data", (bytes) => {
    const heads = (rest + bytes.toString("latin1")).split(HEAD_END);
    rest = heads.pop() ?? "";
    for (let at = 0; at < heads.length; at++) socket.write(ANSWER);
  });
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
process.on("SIGTERM", () => process.exit(0));
