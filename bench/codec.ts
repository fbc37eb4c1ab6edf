/**
 * How fast changesets are encoded and decoded: the codec's share of catching up.
 *
 * Frames of one row and of twenty rows x 5 columns (60-character text in one of them), in millions
 * of column changes per second of one thread; the first run warms up and is not told.
 */
import { packKey } from "../replica/core/wire/packed-key.ts";
import { decodeUniPayload, encodeBroadcast } from "../replica/core/wire/uni-payload.ts";
import type { FullChangeset, SqlValue } from "../replica/types.ts";
import type { Bench, Sample } from "./measure.ts";

/** Figures of one thread. */
export const bench: Bench = {
  about: "changesets to bytes and back, in one thread",
  figures: [
    { name: "encode, 1 row", unit: "M changes/s" },
    { name: "decode, 1 row", unit: "M changes/s" },
    { name: "encode, 20 rows", unit: "M changes/s" },
    { name: "decode, 20 rows", unit: "M changes/s" },
  ],
  run,
};

async function* run(): AsyncIterable<Sample> {
  measure();
  for (;;) {
    yield measure();
    // A signal is heard between runs.
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function measure(): Sample {
  return { ...measureFrames(1, "1 row"), ...measureFrames(20, "20 rows") };
}

function measureFrames(rows: number, name: string): Sample {
  const changesets = Array.from({ length: CHANGESETS }, (_, index) => createChangeset(index, rows));
  const frames = changesets.map((changeset) => encodeBroadcast(changeset, 0));
  const encode = (): void => {
    for (const changeset of changesets) encodeBroadcast(changeset, 0);
  };
  const decode = (): void => {
    for (const frame of frames) {
      if (!decodeUniPayload(frame).ok) throw new Error("own frame refused");
    }
  };
  const changes = CHANGESETS * rows * COLUMNS;
  return {
    [`encode, ${name}`]: turnsPerSecond(encode) * changes * 1e-6,
    [`decode, ${name}`]: turnsPerSecond(decode) * changes * 1e-6,
  };
}

function turnsPerSecond(work: () => void): number {
  const startMs = performance.now();
  let turns = 0;
  while (performance.now() - startMs < SPAN_MS) {
    work();
    turns += 1;
  }
  return (turns * 1_000) / (performance.now() - startMs);
}

function createChangeset(index: number, rows: number): FullChangeset {
  const changes = Array.from({ length: rows }, (_, row) => {
    const pk = packKey([`machine-${index}-${row}`]);
    const columns: [string, SqlValue][] = [
      ["app", `app-${row}`],
      ["region", "ams"],
      ["state", "started"],
      ["note", "x".repeat(60)],
      ["load", BigInt(row)],
    ];
    return columns.map(([cid, val], column) => ({
      table: "machines",
      pk,
      cid,
      val,
      colVersion: 1,
      seq: row * COLUMNS + column,
      cl: 1,
    }));
  }).flat();
  const lastSeq = changes.length - 1;
  return {
    kind: "full",
    actorId: "00112233-4455-6677-8899-aabbccddeeff",
    version: index + 1,
    changes,
    seqs: { start: 0, end: lastSeq },
    lastSeq,
    ts: 1n,
  };
}

const CHANGESETS = 200;
const COLUMNS = 5;
const SPAN_MS = 300;
