/** httpxy as a rival, set up as http-proxy is, whose interface it has. */
import { Agent } from "node:http";
import type { Socket } from "node:net";
import { createProxyServer } from "httpxy";
import {
  addedToRequest,
  CONNECTIONS_MAX,
  logWhenSent,
  originByHost,
  refuse,
  requestId,
  serve,
} from "./node-rival.ts";

const proxy = createProxyServer({
  agent: new Agent({ keepAlive: true, maxFreeSockets: CONNECTIONS_MAX }),
});
proxy.on("error", (_error, _request, response) => {
  // The load generator counts what was not answered with 200.
  if (response !== undefined && "writeHead" in response) refuse(response, 502);
  else response?.destroy();
});

serve({
  onRequest(request, response) {
    const id = requestId();
    logWhenSent(request, response, id);
    const target = originByHost.get(request.headers.host ?? "");
    if (target === undefined) return refuse(response, 404);
    response.setHeader("via", "1.1 httpxy");
    response.setHeader("x-request-id", id);
    void proxy.web(request, response, {
      target,
      headers: addedToRequest(request, { id, via: "httpxy" }),
    });
  },
  onUpgrade(request, socket, head) {
    const target = originByHost.get(request.headers.host ?? "");
    if (target === undefined) return void socket.destroy();
    const headers = addedToRequest(request, { id: requestId(), via: "httpxy" });
    void proxy.ws(request, socket as Socket, { target, headers }, head);
  },
});
