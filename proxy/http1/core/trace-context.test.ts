import { expect, test } from "vitest";
import { bytesOf } from "./bytes.ts";
import { isTraceparent } from "./trace-context.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const PARENT = "b7ad6b7169203331";

test.each([
  [`00-${TRACE}-${PARENT}-01`, true],
  [`00-${TRACE}-${PARENT}-00`, true],
  [`00-${TRACE}-${PARENT}-01-more`, false],
  [`01-${TRACE}-${PARENT}-01-more`, true],
  [`01-${TRACE}-${PARENT}-01x`, false],
  [`ff-${TRACE}-${PARENT}-01`, false],
  [`00-${"0".repeat(32)}-${PARENT}-01`, false],
  [`00-${TRACE}-${"0".repeat(16)}-01`, false],
  [`00-${TRACE.toUpperCase()}-${PARENT}-01`, false],
  [`00_${TRACE}-${PARENT}-01`, false],
  [`00-${TRACE}-${PARENT}-0`, false],
  ["", false],
])("%s is a trace to go on from: %s", (value, expected) => {
  const bytes = bytesOf(`xx${value}yy`);
  expect(isTraceparent(bytes, 2, 2 + value.length)).toBe(expected);
});
