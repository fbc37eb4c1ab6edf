import fc from "fast-check";
import { expect, test } from "vitest";
import type { Alert } from "../types.ts";
import {
  type AlertConfig,
  AlertOutbox,
  type AlertOutput,
  NO_ALERTS,
  readAlert,
  readAlertState,
  workText,
} from "./alert-outbox.ts";

test("an alert is a line and a post with everything a receiver needs", () => {
  const world = new World();
  const outputs = world.raise(STALL);
  expect(kinds(outputs)).toEqual(["line", "save", "post"]);
  expect(outputs[0]).toEqual({ kind: "line", alert: STALL, isRepeat: false });
  expect(JSON.parse(bodyOf(outputs))).toEqual({
    id: "1",
    time: "2026-01-01T00:00:00.000Z",
    host: "edge-1",
    event: "edge-bounced",
    severity: 2,
    subject: "s1",
    msg: "stalled",
    loop: "main",
    alertsDropped: 0,
  });
  expect(kinds(world.answer("1", 204))).toEqual(["save"]);
  expect(world.outbox.deadlineMs()).toBe(Infinity);
  expect(world.outbox.state.totals).toMatchObject({ raised: { "edge-bounced": 1 }, delivered: 1 });
});

test("without a webhook there are lines and nothing waits", () => {
  const world = new World({ isPosted: false });
  expect(kinds(world.raise(STALL))).toEqual(["line", "save"]);
  expect(world.outbox.state.waiting).toEqual([]);
});

test("two answers of 500 cost two delays, the second twice the first, and nothing is lost", () => {
  const world = new World();
  const body = bodyOf(world.raise(STALL));
  expect(world.answer("1", 500)).toEqual([]);
  expect(world.outbox.deadlineMs()).toBe(1_000);
  expect(world.tick(999)).toEqual([]);
  expect(bodyOf(world.tick(1))).toBe(body);
  world.answer("1", 500);
  expect(world.outbox.deadlineMs()).toBe(world.nowMs + 2_000);
  expect(bodyOf(world.tick(2_000))).toBe(body);
  world.answer("1", 200);
  expect(world.outbox.state).toMatchObject({ totals: { delivered: 1, failed: 0 }, waiting: [] });
});

test("up to half of a delay is random, it never exceeds its limit, and then it is given up", () => {
  for (const [random, share] of [
    [0, 1],
    [0.5, 0.75],
  ] as const) {
    const world = new World({ nextRandom: () => random, attemptsMax: 9 });
    world.raise(STALL);
    const delays: number[] = [];
    for (let attempt = 1; attempt < 9; attempt++) {
      world.answer("1", null);
      const waitMs = world.outbox.deadlineMs() - world.nowMs;
      delays.push(waitMs / share);
      expect(kinds(world.tick(waitMs))).toEqual(["post"]);
    }
    expect(delays).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    expect(world.answer("1", null)).toEqual([
      { kind: "lost", id: "1", why: "no answer" },
      { kind: "save" },
    ]);
    expect(world.outbox.state.totals).toMatchObject({ delivered: 0, failed: 1 });
  }
});

test("a receiver that says when to come again is heeded, up to the limit", () => {
  const world = new World();
  world.raise(STALL);
  world.answer("1", 429, 7_000);
  expect(world.outbox.deadlineMs()).toBe(7_000);
  world.tick(7_000);
  world.answer("1", 503, 1e9);
  expect(world.outbox.deadlineMs()).toBe(world.nowMs + 60_000);
});

test.each([301, 400, 401, 404, 410])("a receiver that answers %d is not asked again", (status) => {
  const world = new World();
  world.raise(STALL);
  world.raise({ ...STALL, subject: "s2" });
  expect(kinds(world.answer("1", status))).toEqual(["lost", "save", "post"]);
});

test("a post that hangs holds up later alerts, of which the newest are dropped and counted", () => {
  const world = new World({ queuedMax: 3 });
  expect(kinds(world.raise(STALL))).toContain("post");
  for (const subject of ["s2", "s3"]) {
    expect(kinds(world.raise({ ...STALL, subject }))).toEqual(["line", "save"]);
  }
  expect(kinds(world.raise({ ...STALL, subject: "s4" }))).toEqual(["line", "save", "lost"]);
  expect(world.outbox.state.totals.dropped).toBe(1);
  // Time alone posts nothing while an answer is due.
  expect(world.tick(1e9)).toEqual([]);
  expect(bodyOf(world.answer("1", 200))).toContain('"subject":"s2"');
  world.answer("2", 200);
  const after = world.raise({ ...STALL, subject: "s5" });
  world.answer("3", 200);
  expect(kinds(after)).toEqual(["line", "save"]);
  expect(world.outbox.state.waiting[0]?.body).toContain('"alertsDropped":1');
});

test("the same kind about the same subject is one alert until it is over or long ago", () => {
  const world = new World();
  const expired: Alert = { ...STALL, kind: "certificate-expired", subject: "a.pem" };
  expect(kinds(world.raise(expired))).toContain("post");
  world.answer("1", 200);
  expect(world.raise(expired)).toEqual([
    { kind: "line", alert: expired, isRepeat: true },
    { kind: "save" },
  ]);
  expect(kinds(world.raise({ ...expired, subject: "b.pem" }))).toContain("post");
  world.answer("3", 200);
  world.outbox.handle({ kind: "resolved", alertKind: "certificate-expired", subject: "a.pem" }, 0);
  expect(kinds(world.raise(expired))).toContain("post");
  world.answer("4", 200);
  world.nowMs += 3_600_000;
  expect(kinds(world.raise(expired))).toContain("post");
  expect(world.outbox.state.totals).toMatchObject({ repeated: 1, delivered: 3 });
});

test("what waited when the process ended is posted by the next one, under the same id", () => {
  const world = new World();
  const body = bodyOf(world.raise(STALL));
  const kept = readAlertState(JSON.parse(JSON.stringify(world.outbox.state)));
  expect(kept).toEqual(world.outbox.state);
  const next = new AlertOutbox(world.config, kept ?? NO_ALERTS);
  expect(next.deadlineMs()).toBe(0);
  next.handle({ kind: "tick" }, 0);
  expect(next.drain()).toEqual([{ kind: "post", id: "1", body }]);
  const silent = new AlertOutbox({ ...world.config, isPosted: false }, kept ?? NO_ALERTS);
  expect(silent.deadlineMs()).toBe(Infinity);
});

test("fields cannot take the place of the frame, and a body that is too large goes without them", () => {
  const world = new World();
  const body = bodyOf(world.raise({ ...STALL, fields: { id: "forged", host: "elsewhere" } }));
  expect(JSON.parse(body)).toMatchObject({ id: "1", host: "edge-1" });
  world.answer("1", 200);
  const large = { ...STALL, subject: "s2", msg: "m".repeat(9e5), fields: { x: "x".repeat(9e5) } };
  const cut = bodyOf(world.raise(large));
  expect(cut.length).toBeLessThan(3_000);
  expect(JSON.parse(cut)).toMatchObject({ id: "2", subject: "s2", isCut: true });
});

test("an answer to what is not being posted changes nothing", () => {
  const world = new World();
  world.raise(STALL);
  expect(world.answer("9", 200)).toEqual([]);
  world.answer("1", 500);
  expect(world.answer("1", 200)).toEqual([]);
  expect(world.outbox.state.waiting).toHaveLength(1);
});

test("every alert ends as delivered, failed or dropped, whatever the receiver does", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom("raise" as const, 200, 404, 500, null)), (steps) => {
      const world = new World({ attemptsMax: 2, queuedMax: 2 });
      let raised = 0;
      for (const step of steps) {
        if (step === "raise") {
          raised += 1;
          world.raise({ ...STALL, subject: `s${raised}` });
        } else {
          const [first] = world.outbox.state.waiting;
          if (first !== undefined) world.answer(first.id, step);
          world.tick(60_000);
        }
      }
      const { totals, waiting } = world.outbox.state;
      expect(totals.delivered + totals.failed + totals.dropped + waiting.length).toBe(raised);
      expect(waiting.length).toBeLessThanOrEqual(2);
    }),
  );
});

test("no value is taken for an alert or a state that is none", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      expect(readAlert(value)).toBeNull();
      expect(readAlertState(value)).toBeNull();
    }),
  );
  const { totals } = NO_ALERTS;
  for (const broken of [
    { ...NO_ALERTS, format: 2 },
    { ...NO_ALERTS, waiting: [{ id: "1" }] },
    { ...NO_ALERTS, totals: { ...totals, delivered: -1 } },
    { ...NO_ALERTS, totals: { ...totals, raised: { "crash-loop": "many" } } },
  ]) {
    expect(readAlertState(broken)).toBeNull();
  }
  expect(readAlertState(NO_ALERTS)).toEqual(NO_ALERTS);
});

test("the work at hand is told in words", () => {
  const row = { what: "row", actor: "a1", version: 7, table: "machines", key: "m", previous: {} };
  expect(workText(row)).toBe("row: actor a1, version 7, table machines, key m");
  expect(workText("change 42")).toBe("change 42");
  expect(workText(null)).toBeNull();
  expect(workText("x".repeat(9_999))).toHaveLength(300);
});

const STALL: Alert = {
  kind: "edge-bounced",
  subject: "s1",
  msg: "stalled",
  fields: { loop: "main" },
};

class World {
  readonly config: AlertConfig;
  readonly outbox: AlertOutbox;
  nowMs = 0;
  #raised = 0;

  constructor(config: Partial<AlertConfig> = {}) {
    this.config = {
      isPosted: true,
      host: "edge-1",
      attemptsMax: 8,
      retryFirstMs: 1_000,
      retryMaxMs: 60_000,
      queuedMax: 16,
      repeatMs: 3_600_000,
      nextRandom: () => 0,
      ...config,
    };
    this.outbox = new AlertOutbox(this.config);
  }

  raise(alert: Alert): AlertOutput[] {
    this.#raised += 1;
    const input = { id: String(this.#raised), time: "2026-01-01T00:00:00.000Z" };
    this.outbox.handle({ kind: "raise", alert, ...input }, this.nowMs);
    return this.outbox.drain();
  }

  answer(id: string, status: number | null, retryAfterMs: number | null = null): AlertOutput[] {
    const outcome = { status, retryAfterMs, problem: "no answer" };
    this.outbox.handle({ kind: "posted", id, outcome }, this.nowMs);
    return this.outbox.drain();
  }

  tick(laterMs: number): AlertOutput[] {
    this.nowMs += laterMs;
    this.outbox.handle({ kind: "tick" }, this.nowMs);
    return this.outbox.drain();
  }
}

function kinds(outputs: readonly AlertOutput[]): string[] {
  return outputs.map(({ kind }) => kind);
}

function bodyOf(outputs: readonly AlertOutput[]): string {
  const post = outputs.find((output) => output.kind === "post");
  return post?.kind === "post" ? post.body : "";
}
