/** For end-to-end tests: requests with their whole answers, and waiting by asking, never by time. */
import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { errorText } from "#base/errors.ts";

/** For a wait that never ends, in ms; no test is about speed. */
export const LIMIT_MS = 120_000;

/** An answer with its whole body. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/**
 * Asks until the answer is yes. A question that fails because nobody listens yet counts as no; the
 * limit is for a product that never gets there, and far above what a loaded machine takes.
 */
export async function until(what: string, ask: () => Promise<boolean> | boolean): Promise<void> {
  const deadlineMs = performance.now() + LIMIT_MS;
  let last = "";
  while (performance.now() < deadlineMs) {
    try {
      if (await ask()) return;
    } catch (error) {
      if (!(error instanceof Error) || !("code" in error)) throw error;
      last = errorText(error);
    }
    // Leaves the processor to those that are waited for.
    await new Promise((resolve) => setTimeout(resolve, ASK_PERIOD_MS));
  }
  throw new Error(`${what}: never${last === "" ? "" : `; the last try: ${last}`}`);
}

/** A GET on a connection of its own. */
export async function get(
  port: number,
  path: string,
  options: { ip?: string } = {},
): Promise<Answer> {
  return await send(port, path, options);
}

/** A request on a connection of its own; rejects with the system's error. */
export async function send(
  port: number,
  path: string,
  options: {
    ip?: string;
    method?: string;
    body?: string;
    headers?: Readonly<Record<string, string>>;
  } = {},
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const { ip = "127.0.0.1", method = "GET", body, headers = {} } = options;
  const type = body === undefined ? {} : { "content-type": "application/json" };
  const outgoing = httpRequest(
    { host: ip, port, path, method, agent: false, headers: { ...type, ...headers } },
    (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => (text += part));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
      );
    },
  );
  outgoing.setTimeout(LIMIT_MS, () => outgoing.destroy(new Error(`${path}: no answer`)));
  outgoing.on("error", reject);
  outgoing.end(body);
  return await promise;
}

const ASK_PERIOD_MS = 25;
