/** httpxy as a rival, set up as http-proxy is, whose interface it has. */
import { Agent } from "node:http";
import type { Socket } from "node:net";
import { createProxyServer } from "httpxy";
import { CONNECTIONS_MAX, forwardOf, forwardOfUpgrade, refuse, serve } from "./node-rival.ts";

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
    const forward = forwardOf(request, response, "httpxy");
    if (forward !== null) void proxy.web(request, response, forward);
  },
  onUpgrade(request, socket, head) {
    const forward = forwardOfUpgrade(request, socket, "httpxy");
    if (forward !== null) void proxy.ws(request, socket as Socket, forward, head);
  },
});
