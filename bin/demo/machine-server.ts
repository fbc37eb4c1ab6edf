/**
 * A customer's machine: a real HTTP server in a process of its own that says who it is.
 *
 * Arguments: machine id, region, port. Prints `ready` on standard output once it listens.
 */
import { createServer } from "node:http";

const [machineId = "", region = "", port = "0"] = process.argv.slice(2);
const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  request.resume();
  const body = JSON.stringify({ machine: machineId, region, path: request.url });
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    "x-machine": machineId,
  });
  response.end(body);
});
server.listen(Number(port), "127.0.0.1", () => process.stdout.write("ready\n"));
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
});
