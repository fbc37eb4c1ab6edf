/**
 * A thread that listens and then blocks for ever, so that the socket stays open and its accept
 * queue fills without anybody accepting: the edge process, which inherits the descriptor, does.
 *
 * The reply goes out before the thread blocks, in the same turn in which the socket began to
 * listen: its event loop never gets to poll the socket.
 */
import { type ListenOptions, createServer } from "node:net";
import { parentPort, workerData } from "node:worker_threads";

const server = createServer();
server.once("error", (error) => {
  const code = "code" in error ? String(error.code) : "UNKNOWN";
  parentPort?.postMessage({ kind: "failed", code, message: error.message });
});
server.listen(workerData as ListenOptions, () => {
  // Node tells the descriptor nowhere else.
  const { _handle: handle } = server as unknown as { readonly _handle: { readonly fd: number } };
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  parentPort?.postMessage({ kind: "held", fd: handle.fd, port });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});
