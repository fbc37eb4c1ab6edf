import { expect, test } from "vitest";
import { EdgeQuestions } from "./edge-questions.ts";
import type { ReplicaThreadEvent } from "./messages.ts";

test("answers find their questions, in any order", async () => {
  const { asked, questions } = create();
  const first = questions.ask({ kind: "routes", limit: 1 });
  const second = questions.ask({ kind: "explain", host: "a.test" });
  const [one, two] = asked.map((event) => (event.kind === "ask" ? event.id : 0));
  questions.answered(two!, "second");
  questions.answered(one!, "first");
  expect(await Promise.all([first, second])).toEqual(["first", "second"]);
});

test("a main thread that is stuck costs an error, and an answer that comes too late nothing", async () => {
  const { asked, questions } = create(1);
  await expect(questions.ask({ kind: "routes", limit: 1 })).rejects.toMatchObject({
    code: "EDGE_SILENT",
  });
  const [event] = asked;
  questions.answered(event?.kind === "ask" ? event.id : 0, "late");
});

function create(answerMs?: number): { asked: ReplicaThreadEvent[]; questions: EdgeQuestions } {
  const asked: ReplicaThreadEvent[] = [];
  return { asked, questions: new EdgeQuestions((event) => void asked.push(event), answerMs) };
}
