import { expect, test } from "vitest";
import { OWN_HEAD_BELIEVED_MAX, Recovery, RECOVERY_DEFAULTS } from "./recovery.ts";

const { aloneMs, calmMs, silentMs, retryMs } = RECOVERY_DEFAULTS;

test("what the members know of us is the head to go on above, once it is here", () => {
  const recovery = begin();
  compare(recovery, "b", 5);
  compare(recovery, "c", 7);
  compare(recovery, "d", 6);
  recovery.handle(roundFinished({ head: 3, members: "bcd" }), 500);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  recovery.handle(roundFinished({ head: 7, members: "bcd" }), 500 + calmMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 7 }]);
  recovery.handle({ kind: "finished", isStored: true }, 510 + calmMs);
  expect(recovery.isRunning).toBe(false);
  expect(recovery.deadlineMs()).toBe(Number.POSITIVE_INFINITY);
});

test("every member is asked, not just a few of them", () => {
  const recovery = begin();
  for (const peer of ["b", "c", "d", "e", "f"]) compare(recovery, peer, 3);
  recovery.handle(roundFinished({ head: 3, members: "bcdefg" }), 500);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  compare(recovery, "g", 4);
  recovery.handle(roundFinished({ head: 4, members: "bcdefg" }), 500 + calmMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 4 }]);
});

test("members that come one after another are waited for", () => {
  const recovery = begin();
  compare(recovery, "b", 3);
  recovery.handle(roundFinished({ head: 3, members: "b" }), 500);
  expect(recovery.drain()).toEqual([]);
  expect(recovery.deadlineMs()).toBe(500 + calmMs);
  recovery.handle(tick({ head: 3, members: "bc" }), 500 + calmMs);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  compare(recovery, "c", 8);
  recovery.handle(roundFinished({ head: 8, members: "bc" }), 600 + calmMs);
  expect(recovery.drain()).toEqual([]);
  recovery.handle(tick({ head: 8, members: "bc" }), 500 + 2 * calmMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 8 }]);
});

test("where others stay silent for ten seconds, who answered is enough", () => {
  const recovery = begin();
  compare(recovery, "b", 3);
  recovery.handle(roundFinished({ head: 3, members: "bcdefghij" }), aloneMs - 1);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  recovery.handle(roundFinished({ head: 3, members: "bcdefghij" }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 3 }]);
});

test("versions that nobody gives in a whole round are skipped", () => {
  const recovery = begin();
  compare(recovery, "b", 9);
  recovery.handle(roundFinished({ head: 9, missing: 2, members: "b" }), 500);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  recovery.handle(roundFinished({ head: 9, missing: 2, members: "b" }), 500 + calmMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 9 }]);
});

test("a round in which no peer said anything ends nothing", () => {
  const recovery = begin();
  recovery.handle(roundFinished({ head: 3, members: "b" }), 500);
  expect(recovery.drain()).toEqual([]);
});

test("nobody comes within ten seconds: another identity, whatever is configured", () => {
  const recovery = begin();
  recovery.handle(tick({ members: "" }), aloneMs - 1);
  expect(recovery.drain()).toEqual([]);
  expect(recovery.deadlineMs()).toBe(aloneMs);
  recovery.handle(tick({ head: 3, members: "" }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "renew" }]);
  expect(recovery.isRunning).toBe(true);
});

test("members that do not answer have a minute", () => {
  const recovery = begin();
  recovery.handle(tick({ members: "bc" }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  expect(recovery.deadlineMs()).toBe(silentMs);
  recovery.handle(tick({ members: "bc" }), silentMs);
  expect(recovery.drain()).toEqual([{ kind: "renew" }]);
});

test("who answered and then went has said enough", () => {
  const recovery = begin();
  compare(recovery, "b", 9);
  recovery.handle(tick({ head: 3, members: "" }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 9 }]);
});

test("a store that was too busy is told again", () => {
  const recovery = begin();
  compare(recovery, "b", 3);
  recovery.handle(roundFinished({ head: 3, members: "b" }), aloneMs);
  recovery.drain();
  recovery.handle({ kind: "finished", isStored: false }, aloneMs + 100);
  expect(recovery.deadlineMs()).toBe(aloneMs + 100 + retryMs);
  recovery.handle(tick({ head: 3, members: "b" }), aloneMs + 100 + retryMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 3 }]);
});

test("a head beyond belief leaves us versions to give out", () => {
  const recovery = begin();
  compare(recovery, "b", Number.MAX_SAFE_INTEGER);
  recovery.handle(roundFinished({ head: 3, members: "b" }), 500);
  recovery.handle(roundFinished({ head: 3, members: "b" }), 500 + calmMs);
  expect(recovery.drain().at(-1)).toEqual({ kind: "finish", head: OWN_HEAD_BELIEVED_MAX });
});

function begin(): Recovery {
  const recovery = new Recovery(RECOVERY_DEFAULTS);
  recovery.handle({ kind: "start" }, 0);
  return recovery;
}

function compare(recovery: Recovery, peer: string, head: number): void {
  recovery.handle({ kind: "compared", peer, head }, 100);
}

interface Present {
  readonly head?: number;
  readonly missing?: number;
  /** A letter each. */
  readonly members: string;
}

function roundFinished({ head = 0, missing = 0, members }: Present) {
  return { kind: "roundFinished", own: { head, missing }, members: members.split("") } as const;
}

function tick({ head = 0, missing = 0, members }: Present) {
  return { kind: "tick", own: { head, missing }, members: members.split("") } as const;
}
