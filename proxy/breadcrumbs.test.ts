import fc from "fast-check";
import { expect, test } from "vitest";
import { LoopBeat } from "../watchdog/core/loop-beat.ts";
import { allocateLoops, currentBreadcrumb, loopRegion } from "../watchdog/core/shared-layout.ts";
import type { RowChange } from "../replica/types.ts";
import { decodeBreadcrumb, noteRequest, noteRow } from "./breadcrumbs.ts";

const ROW: RowChange = {
  table: "services",
  key: ["m1", "web"],
  row: { app_id: "shop", address: "127.0.0.1:80" },
  actorId: "11111111-1111-4111-8111-111111111111",
  version: 42,
};

test("a row's breadcrumb names actor, version, table, key and app", () => {
  expect(noted((beat) => noteRow(beat, ROW))).toEqual({
    what: "row",
    actor: ROW.actorId,
    version: 42,
    table: "services",
    key: "m1,web",
    app: "shop",
  });
});

test("a deleted row's breadcrumb has no app", () => {
  const decoded = noted((beat) => noteRow(beat, { ...ROW, row: null }));
  expect(decoded).toMatchObject({ what: "row", version: 42 });
  expect(decoded).not.toHaveProperty("app");
});

test("a request's breadcrumb is its request line", () => {
  const bytes = Buffer.from("....GET /a?b HTTP/1.1\r\nHost: shop\r\n\r\n");
  const decoded = noted((beat) => noteRequest(beat, { bytes, start: 4, end: bytes.length }));
  expect(decoded).toEqual({
    what: "request",
    line: "GET /a?b HTTP/1.1",
    headBytes: bytes.length - 4,
  });
});

test("any bytes of any kind are decoded to something that JSON can hold", () => {
  fc.assert(
    fc.property(
      fc.nat(255),
      fc.double(),
      fc.uint8Array({ maxLength: 512 }),
      (kind, value, bytes) => {
        JSON.stringify(decodeBreadcrumb({ kind, value, bytes, isCut: false }));
      },
    ),
  );
});

function noted(note: (beat: LoopBeat) => void): unknown {
  const buffer = allocateLoops(1);
  note(LoopBeat.attach({ buffer, loop: 0 }, { threadId: 0, nativeThreadId: 0 }));
  const record = currentBreadcrumb(loopRegion(buffer, 0));
  if (record === null) throw new Error("no breadcrumb was left");
  return decodeBreadcrumb(record);
}
