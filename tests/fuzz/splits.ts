/**
 * A corpus of 200 messages, and the claim that no way of cutting them over two or three writes
 * changes what is read or passed on.
 *
 * Half of them are good; the others come from the fuzz, so that refusals are cut, too.
 */
import { goodRequest, goodResponse, requestStream, responseCase } from "./message-grammar.ts";
import { PatinaReader, type PatinaReading } from "./patina-reading.ts";

/** One text of the corpus and how it is read. */
interface CorpusItem {
  readonly text: string;
  readonly read: (cuts: readonly number[]) => PatinaReading;
}

/** What was tried and the first thing that is wrong, `""` = nothing. */
export interface SplitsVerdict {
  readonly found: string;
  readonly count: number;
}

/** Tries every split in two; in three every one when full, else a share. */
export function judgeSplits({ isFull }: { readonly isFull: boolean }): SplitsVerdict {
  let count = 0;
  for (const { text, read } of corpus()) {
    const whole = summaryOf(read([]));
    for (let first = 1; first < text.length; first += 1) {
      // A prime step: over all first cuts every second cut gets its turn.
      for (let second = first; second <= text.length; second += isFull ? 1 : STEP) {
        count += 1;
        const cuts = second === first ? [first] : [first, second];
        if (summaryOf(read(cuts)) !== whole) {
          return { found: `cut at ${cuts.join(" and ")}: ${JSON.stringify(text)}`, count };
        }
      }
    }
  }
  return { found: "", count };
}

/** The texts that splits are tried on: 100 of requests, 100 of responses. */
export function corpus(): CorpusItem[] {
  const reader = new PatinaReader();
  const items: CorpusItem[] = [];
  for (let index = 0; items.length < CORPUS_SIZE; index += 1) {
    const isGood = index % 2 === 0;
    const request = isGood ? goodRequest(SEED, index) : requestStream(SEED, index);
    const bytes = Buffer.from(request, "latin1");
    if (bytes.length < TEXT_BYTES_MAX) {
      items.push({ text: request, read: (cuts) => reader.requests(bytes, cuts) });
    }
    const about = isGood ? goodAnswer(index) : responseCase(SEED, index);
    const answer = Buffer.from(about.text, "latin1");
    if (answer.length < TEXT_BYTES_MAX) {
      items.push({ text: about.text, read: (cuts) => reader.responses(answer, about, cuts) });
    }
  }
  return items.slice(0, CORPUS_SIZE);
}

function goodAnswer(index: number) {
  const text = goodResponse(SEED, index, "GET");
  return { method: "GET", clientMinor: 1, wantsUpgrade: false, text } as const;
}

/** What a reading says, for comparison. */
function summaryOf({ messages, ending }: PatinaReading): string {
  let summary = typeof ending === "string" ? ending : ending.refused;
  for (const { out, end, body, isComplete } of messages) {
    summary += `\n${end} ${isComplete} ${body}\n${out.toString("latin1")}`;
  }
  return summary;
}

const SEED = 5;
const CORPUS_SIZE = 200;
/** Longer texts add only bytes of the same kind. */
const TEXT_BYTES_MAX = 300;
const STEP = 11;
