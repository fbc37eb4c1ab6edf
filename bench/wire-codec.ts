/**
 * How fast changesets are encoded and decoded: the codec's share of catching up.
 *
 * Frames of one row and of twenty rows x 5 columns (60-character text in one of them); the best of five
 * timed spans after a warm-up, in column changes per second of one thread.
 */
import { performance } from "node:perf_hooks";
import type { FullChangeset, SqlValue } from "../replica/types.ts";
import { packKey } from "../replica/core/wire/packed-key.ts";
import { decodeUniPayload, encodeBroadcast } from "../replica/core/wire/uni-payload.ts";

const CHANGESETS = 200;
const COLUMNS = 5;
const SPANS = 5;
const SPAN_MS = 300;

for (const rows of [1, 20]) {
  const changesets = Array.from({ length: CHANGESETS }, (_, index) => createChangeset(index, rows));
  const frames = changesets.map((changeset) => encodeBroadcast(changeset, 0));
  report(`encode, ${rows} rows`, rows, () => {
    for (const changeset of changesets) encodeBroadcast(changeset, 0);
  });
  report(`decode, ${rows} rows`, rows, () => {
    for (const frame of frames) {
      if (!decodeUniPayload(frame).ok) throw new Error("own frame refused");
    }
  });
}

function report(name: string, rows: number, work: () => void): void {
  let best = 0;
  for (let span = 0; span <= SPANS; span += 1) {
    const startMs = performance.now();
    let turns = 0;
    while (performance.now() - startMs < SPAN_MS) {
      work();
      turns += 1;
    }
    const seconds = (performance.now() - startMs) / 1000;
    // The first span warms up.
    if (span > 0) best = Math.max(best, (turns * CHANGESETS * rows * COLUMNS) / seconds);
  }
  process.stdout.write(`${name}: ${(best / 1e6).toFixed(2)} M changes/s\n`);
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
