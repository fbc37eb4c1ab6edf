import { expect, test } from "vitest";
import { OWN_HEAD_BELIEVED_MAX, Recovery, RECOVERY_DEFAULTS } from "./recovery.ts";

const { aloneMs, silentMs, retryMs } = RECOVERY_DEFAULTS;

test("what three peers know of us is the head to go on above, once it is here", () => {
  const recovery = begin();
  compare(recovery, "b", 5);
  compare(recovery, "c", 7);
  compare(recovery, "d", 6);
  recovery.handle(roundFinished({ head: 3, members: 9 }), 500);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  recovery.handle(roundFinished({ head: 7, members: 9 }), 1_000);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 7 }]);
  recovery.handle({ kind: "finished", isStored: true }, 1_010);
  expect(recovery.isRunning).toBe(false);
  expect(recovery.deadlineMs()).toBe(Number.POSITIVE_INFINITY);
});

test("one peer is enough where there is one, but not where there are more", () => {
  const alone = begin();
  compare(alone, "b", 3);
  alone.handle(roundFinished({ head: 3, members: 1 }), 500);
  expect(alone.drain()).toEqual([{ kind: "finish", head: 3 }]);
  const among = begin();
  compare(among, "b", 3);
  among.handle(roundFinished({ head: 3, members: 2 }), 500);
  expect(among.drain()).toEqual([{ kind: "askAgain" }]);
});

test("where others stay silent for ten seconds, who answered is enough", () => {
  const recovery = begin();
  compare(recovery, "b", 3);
  recovery.handle(roundFinished({ head: 3, members: 9 }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 3 }]);
});

test("versions that nobody gives in a whole round are skipped", () => {
  const recovery = begin();
  compare(recovery, "b", 9);
  recovery.handle(roundFinished({ head: 9, missing: 2, members: 1 }), 500);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  recovery.handle(roundFinished({ head: 9, missing: 2, members: 1 }), 1_000);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 9 }]);
});

test("a round in which no peer said anything ends nothing", () => {
  const recovery = begin();
  recovery.handle(roundFinished({ head: 3, members: 1 }), 500);
  expect(recovery.drain()).toEqual([]);
});

test("others are expected and nobody comes within ten seconds: another identity", () => {
  const recovery = begin({ hasPeers: true });
  recovery.handle(tick({ members: 0 }), aloneMs - 1);
  expect(recovery.drain()).toEqual([]);
  expect(recovery.deadlineMs()).toBe(aloneMs);
  recovery.handle(tick({ members: 0 }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "renew" }]);
  expect(recovery.isRunning).toBe(true);
});

test("nobody is expected and nobody comes within ten seconds: on from here", () => {
  const recovery = begin({ hasPeers: false });
  recovery.handle(tick({ head: 3, members: 0 }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 3 }]);
});

test("members that do not answer have a minute", () => {
  const recovery = begin({ hasPeers: false });
  recovery.handle(tick({ members: 2 }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "askAgain" }]);
  expect(recovery.deadlineMs()).toBe(silentMs);
  recovery.handle(tick({ members: 2 }), silentMs);
  expect(recovery.drain()).toEqual([{ kind: "renew" }]);
});

test("who answered and then went has said enough", () => {
  const recovery = begin();
  compare(recovery, "b", 9);
  recovery.handle(tick({ head: 3, members: 0 }), aloneMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 9 }]);
});

test("a store that was too busy is told again", () => {
  const recovery = begin();
  compare(recovery, "b", 3);
  recovery.handle(roundFinished({ head: 3, members: 1 }), 500);
  recovery.drain();
  recovery.handle({ kind: "finished", isStored: false }, 600);
  expect(recovery.deadlineMs()).toBe(600 + retryMs);
  recovery.handle(tick({ head: 3, members: 1 }), 600 + retryMs);
  expect(recovery.drain()).toEqual([{ kind: "finish", head: 3 }]);
});

test("a head beyond belief leaves us versions to give out", () => {
  const recovery = begin();
  compare(recovery, "b", Number.MAX_SAFE_INTEGER);
  recovery.handle(roundFinished({ head: 3, members: 1 }), 500);
  recovery.handle(roundFinished({ head: 3, members: 1 }), 1_000);
  expect(recovery.drain().at(-1)).toEqual({ kind: "finish", head: OWN_HEAD_BELIEVED_MAX });
});

function begin(options: { hasPeers?: boolean } = {}): Recovery {
  const recovery = new Recovery(RECOVERY_DEFAULTS);
  recovery.handle({ kind: "start", hasPeers: options.hasPeers ?? true }, 0);
  return recovery;
}

function compare(recovery: Recovery, peer: string, head: number): void {
  recovery.handle({ kind: "compared", peer, head }, 100);
}

interface Present {
  readonly head?: number;
  readonly missing?: number;
  readonly members: number;
}

function roundFinished({ head = 0, missing = 0, members }: Present) {
  return { kind: "roundFinished", own: { head, missing }, members } as const;
}

function tick({ head = 0, missing = 0, members }: Present) {
  return { kind: "tick", own: { head, missing }, members } as const;
}
