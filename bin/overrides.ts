/** Values laid over the config file: `--set key=value` flags and environment variables. */
import { PatinaError } from "#base/errors.ts";

/** One thing to lay over the file: a dotted key and its value. */
export interface Override {
  readonly key: string;
  readonly value: unknown;
  /** Where it comes from, for messages: `--api-addr`, `PATINA__API__ADDR`. */
  readonly source: string;
}

/** Parses the flags; a value that is JSON is taken as such, anything else as text. */
export function overridesFromFlags(flags: readonly string[]): Override[] {
  return flags.map((flag) => {
    const equals = flag.indexOf("=");
    if (equals < 1) {
      throw new PatinaError("USAGE", `--set ${flag}: expected key=value, as in log.level=debug`);
    }
    const key = flag.slice(0, equals);
    return { key, value: jsonOrText(flag.slice(equals + 1)), source: `--set ${key}` };
  });
}

/** JSON where the text looks like it and parses; else the text itself. */
export function jsonOrText(text: string): unknown {
  if (!/^(?:true|false|-?\d+(?:\.\d+)?|\[.*\]|\{.*\}|".*")$/s.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch (error) {
    // Something like `[::]:8787`: starts as a list would, and is a text.
    if (error instanceof SyntaxError) return text;
    throw error;
  }
}
