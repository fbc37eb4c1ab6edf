/**
 * The replica's figures in one table, each with its goal and Corrosion's: its parts one after
 * the other. `--only NAME` takes one of them.
 */
import { describeSample, type Bench, type BenchContext, type Sample } from "./measure.ts";
import { bench as catchup } from "./replica-catchup.ts";
import { bench as change } from "./replica-change.ts";
import { bench as edges } from "./replica-edges.ts";
import { bench as http } from "./replica-http.ts";
import { bench as idle } from "./replica-idle.ts";
import { bench as load } from "./replica-load.ts";
import { bench as schema } from "./replica-schema.ts";

/** Its parts by the name that `--only` takes. */
export const REPLICA_PARTS: Readonly<Record<string, Bench>> = {
  change,
  edges,
  load,
  http,
  catchup,
  idle,
  schema,
};

/** All parts. */
export const bench: Bench = {
  about: `the replica beside Corrosion; --only ${Object.keys(REPLICA_PARTS).join("|")}`,
  figures: Object.values(REPLICA_PARTS).flatMap(({ figures }) => figures),
  run,
};

/** A part takes all its runs before the next begins: its cluster is started once. */
async function* run(context: BenchContext): AsyncIterable<Sample> {
  const merged: Sample[] = Array.from({ length: context.runs }, () => ({}));
  for (const [name, part] of Object.entries(REPLICA_PARTS)) {
    context.note(`${name}: ${part.about}`);
    await using stack = new AsyncDisposableStack();
    // Ended by a signal, too; disposing twice does nothing.
    context.stack.use(stack);
    let at = 0;
    for await (const sample of part.run({ ...context, stack })) {
      context.note(describeSample(part.figures, sample));
      merged[at] = { ...merged[at], ...sample };
      if (++at === context.runs) break;
    }
  }
  yield* merged;
}
