/** For end-to-end tests: steady clients of an edge, and what became of their requests. */
import { Agent, request as httpRequest } from "node:http";
import { errorText } from "#base/errors.ts";
import { until } from "./asking-fixture.ts";
import type { TestHost } from "./cluster-fixture.ts";

/** Clients that ask one request after the other: half keep their connection, half do not. */
export class Traffic {
  readonly #target: TestHost;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #failures: string[] = [];
  readonly #running: Promise<unknown>;
  #answered = 0;
  #longestMs = 0;
  #isStopped = false;

  /** Asks for `one.test`, from now on. */
  constructor(target: TestHost) {
    this.#target = target;
    const agents = [this.#agent, this.#agent, false, false] as const;
    this.#running = Promise.all(agents.map((agent) => this.#run(agent)));
  }

  /** Requests that were answered 200. */
  get answered(): number {
    return this.#answered;
  }

  /** The longest that a client waited for its answer, or for its connection to be cut. */
  get longestMs(): number {
    return this.#longestMs;
  }

  /** Resolves when some more requests were answered. */
  async flows(): Promise<void> {
    const goal = this.#answered + 20;
    await until("requests are answered", () => this.#answered >= goal);
  }

  /** What went wrong, in all that were asked. */
  async stop(): Promise<readonly string[]> {
    this.#isStopped = true;
    await this.#running;
    this.#agent.destroy();
    return this.#failures;
  }

  async #run(agent: Agent | false): Promise<void> {
    while (!this.#isStopped) {
      const fromMs = performance.now();
      try {
        const status = await this.#ask(agent);
        if (status === 200) this.#answered += 1;
        else this.#failures.push(`status ${status}`);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        this.#failures.push(code ?? errorText(error));
      }
      this.#longestMs = Math.max(this.#longestMs, performance.now() - fromMs);
    }
  }

  #ask(agent: Agent | false): Promise<number> {
    const { ip: host, httpPort: port } = this.#target;
    return new Promise((resolve, reject) => {
      const asked = httpRequest({ host, port, agent, headers: { host: "one.test" } }, (answer) => {
        answer.resume();
        answer.on("error", reject);
        answer.on("end", () => resolve(answer.statusCode ?? 0));
      });
      asked.on("error", reject);
      asked.end();
    });
  }
}
