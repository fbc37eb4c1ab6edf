import fc from "fast-check";
import { expect, test } from "vitest";
import { LoopBeat } from "../watchdog/core/loop-beat.ts";
import { allocateLoops, currentBreadcrumb, loopRegion } from "../watchdog/core/shared-layout.ts";
import type { RowChange } from "../replica/types.ts";
import { decodeBreadcrumb, noteBatch, noteRequest, noteRow } from "./breadcrumbs.ts";

const ROW: RowChange = {
  table: "services",
  key: ["m1", "web"],
  row: { app_id: "shop", address: "127.0.0.1:80" },
  actorId: "11111111-1111-4111-8111-111111111111",
  version: 42,
};

const IMAGE = { machine_id: "m1", name: "web", address: "127.0.0.1:79", soft_limit: 4 };

test("a row's breadcrumb names actor, version, table, key and app", () => {
  expect(noted((beat) => noteRow(beat, ROW, IMAGE))).toEqual({
    what: "row",
    actor: ROW.actorId,
    version: 42,
    table: "services",
    key: "m1,web",
    app: "shop",
    previous: IMAGE,
  });
});

test("a row in use that does not fit is left out, and the change is named all the same", () => {
  const decoded = noted((beat) => noteRow(beat, ROW, { ...IMAGE, address: "x".repeat(600) }));
  expect(decoded).toMatchObject({ what: "row", version: 42, key: "m1,web" });
  expect(decoded).not.toHaveProperty("previous");
});

test("what takes something out of service is marked", () => {
  const stopped = { ...ROW, table: "machines", key: ["m1"], row: { state: "stopped" } };
  expect(noted((beat) => noteRow(beat, stopped, null))).toMatchObject({
    isDown: true,
    previous: null,
  });
  expect(noted((beat) => noteRow(beat, ROW, null))).not.toHaveProperty("isDown");
});

test("a batch's breadcrumb says how many rows, and how far it leads", () => {
  const rows = [ROW, { ...ROW, version: 43 }, ROW];
  const watermark = { databaseId: "d", dbVersion: 900 };
  expect(noted((beat) => noteBatch(beat, rows, watermark))).toEqual({
    what: "batch",
    rows: 3,
    until: 900,
    first: [`42 of ${ROW.actorId}`, `43 of ${ROW.actorId}`],
  });
});

test("a deleted row's breadcrumb has no app", () => {
  const decoded = noted((beat) => noteRow(beat, { ...ROW, row: null }, null));
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
