/** nginx as an upstream for tests, where it is installed: reads requests and passes them on. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { TestStack } from "../../proxy/testing/test-stack.ts";

/** Whether nginx can be started here. */
export function hasNginx(): boolean {
  return spawnSync("nginx", ["-v"]).status === 0;
}

/** Starts nginx in front of `recorderPort`; its port. It ends with the stack. */
export async function startNginx(stack: TestStack, recorderPort: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "patina-nginx-"));
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  // nginx cannot be given a port by the system: one that was free a moment ago is taken.
  const port = await stack.deadPort();
  const file = join(folder, "nginx.conf");
  writeFileSync(file, configOf({ folder, port, recorderPort }));
  const child = spawn("nginx", ["-c", file, "-p", folder, "-e", join(folder, "error.log")], {
    stdio: "ignore",
  });
  const exited = once(child, "exit");
  stack.defer(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  while (!(await answers(port))) {
    if (child.exitCode !== null) throw new Error(`nginx ended with code ${child.exitCode}`);
  }
  return port;
}

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  const isOpen = await new Promise<boolean>((resolve) => {
    socket.on("connect", () => resolve(true));
    socket.on("error", () => setImmediate(resolve, false));
  });
  socket.destroy();
  return isOpen;
}

function configOf(options: { folder: string; port: number; recorderPort: number }): string {
  const { folder, port, recorderPort } = options;
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `  ${name}_temp_path ${folder}/${name};`)
    .join("\n");
  return `
daemon off;
master_process off;
pid ${folder}/pid;
events { worker_connections 256; }
http {
  access_log off;
${temporary}
  keepalive_timeout 3600;
  keepalive_requests 1000000;
  client_max_body_size 0;
  upstream recorder {
    server 127.0.0.1:${recorderPort};
    keepalive 16;
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream off;
      proxy_pass http://recorder;
    }
  }
}
`;
}
