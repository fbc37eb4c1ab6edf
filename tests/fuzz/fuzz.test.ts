/**
 * A small share of `npm run fuzz`, and the proof that its judge would find what it looks for: readers
 * with the classic mistakes are all caught.
 */
import { expect, test } from "vitest";

import { Differential } from "./differential.ts";
import { PatinaReader } from "./patina-reading.ts";
import { corpus, judgeSplits } from "./splits.ts";

const SEED = 1;
const CASES = 20_000;
const SMUGGLED = "GET /b HTTP/1.1\r\nHost: smuggled\r\n\r\n";

test("Node reads whatever Patina passes on as the same single message", () => {
  const differential = new Differential();
  for (let index = 0; index < CASES; index += 1) {
    const found = differential.judge(SEED, index);
    if (found !== "") {
      expect.fail(`${found}\nnpm run fuzz -- http --seed ${SEED} --case ${index}`);
    }
  }
  const { tally } = differential;
  expect(tally.cases).toBe(CASES);
  // Good, cut off and hostile messages were all there, and Node had its say on nearly all of them.
  expect(tally.passedWhole).toBeGreaterThan(CASES / 2);
  expect(tally.passedInPart).toBeGreaterThan(CASES / 100);
  expect(tally.refused).toBeGreaterThan(CASES / 5);
  expect(tally.nodeRefused).toBeLessThan(CASES / 20);
  expect(tally.refusals.size).toBeGreaterThan(20);
});

test.each<[string, string, (text: string) => string, string]>([
  [
    "looks for no body behind a GET",
    `GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n${SMUGGLED}`,
    (text) => text.replace("Content-Length: 35\r\n", ""),
    "another body",
  ],
  [
    "knows no chunks",
    `GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n23\r\n${SMUGGLED}\r\n0\r\n\r\n`,
    (text) => text.replace("Transfer-Encoding: chunked\r\n", ""),
    "another body",
  ],
  [
    "takes the last of two lengths",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    (text) => text.replace("Content-Length: 0\r\n", ""),
    "refuses what is passed on: HPE_UNEXPECTED_CONTENT_LENGTH",
  ],
  [
    "goes by the length where both are given",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    (text) => text.replace("Transfer-Encoding: chunked\r\n", ""),
    "refuses what is passed on: HPE_INVALID_TRANSFER_ENCODING",
  ],
  [
    "takes a bare LF for the end of a line",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\nContent-Length: 5\r\n\r\nhello",
    (text) => text.replace("a\nC", "a\r\nC"),
    "refuses what is passed on: HPE_",
  ],
  [
    "lets a line be folded",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    (text) => text.replace("\r\n b", " b"),
    "refuses what is passed on: HPE_",
  ],
  [
    "lets a blank stand before a colon",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    (text) => text.replace(" :", ":"),
    "refuses what is passed on: HPE_",
  ],
  [
    "reads a length with a sign",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    (text) => text.replace("+", ""),
    "refuses what is passed on: HPE_INVALID_CONTENT_LENGTH",
  ],
])("a reader is caught that %s", (_name, text, misread, expected) => {
  expect(new Differential().judgeRequests(text, [7])).toBe("");
  const found = new Differential(misreading(misread)).judgeRequests(text, [7]);
  expect(found).toContain(expected);
});

test("no way of cutting a message over two or three writes changes what is passed on", () => {
  const texts = corpus().map(({ text }) => text);
  expect(texts).toHaveLength(200);
  const { found, count } = judgeSplits({ isFull: false });
  expect(found).toBe("");
  expect(count).toBeGreaterThan(100_000);
});

/**
 * A proxy that takes `misread(text)` for what it got, and passes on its first message as it came.
 */
function misreading(
  misread: (text: string) => string,
): Pick<PatinaReader, "requests" | "responses"> {
  const patina = new PatinaReader();
  return {
    requests: (bytes) => {
      const other = Buffer.from(misread(bytes.toString("latin1")), "latin1");
      if (other.equals(bytes)) return patina.requests(bytes);
      const { messages, ending } = patina.requests(other);
      const out = (end: number) => bytes.subarray(0, end + bytes.length - other.length);
      return {
        ending,
        messages: messages.slice(0, 1).map((message) => ({ ...message, out: out(message.end) })),
      };
    },
    responses: (bytes, about, cuts) => patina.responses(bytes, about, cuts),
  };
}
