import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { decodeUniPayload, frameBody } from "../../core/wire/uni-payload.ts";
import type { FullChangeset } from "../../types.ts";
import { DICTIONARY, DICTIONARY_ID } from "./dictionary-fixture.ts";
import { decompress, frameDictionaryId, Zstd, type ZstdOptions } from "./zstd.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-zstd-"));
const file = join(folder, "machines.zdict");
writeFileSync(file, DICTIONARY);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a change that gets smaller is sent compressed and read back as it was", () => {
  const zstd = create({});
  const changeset = machineRow("x".repeat(600));
  const body = zstd.compressBody(changeset);
  expect(body?.length).toBeLessThan(200);
  expect(readBody(zstd, body)).toEqual([changeset]);
  const { broadcast, sync } = zstd.stats;
  expect(broadcast).toMatchObject({ attempts: 1, used: 1, uselessBytes: 0, undecodable: 0 });
  expect(broadcast.savedBytes).toBeGreaterThan(400);
  expect(broadcast.extraBytes).toBe(broadcast.savedBytes);
  expect(sync).toMatchObject({ attempts: 0, extraBytes: 0 });
});

test("what would not get smaller, or is not to be compressed, is sent as it is", () => {
  expect(create({}).compressBody(machineRow("x"))).toBeNull();
  const zstd = create({});
  expect(zstd.compressBody(machineRow(noise(8_000)))).toBeNull();
  const { attempts, used, rawBytes, uselessBytes } = zstd.stats.broadcast;
  expect({ attempts, used }).toEqual({ attempts: 1, used: 0 });
  expect(rawBytes).toBeGreaterThan(8_000);
  expect(uselessBytes).toBe(rawBytes);
  expect(create({ isEnabled: false }).compressBody(machineRow("x".repeat(600)))).toBeNull();
});

test("with a dictionary even one row gets smaller, and names the dictionary", () => {
  const zstd = create({ file });
  const changeset = machineRow(
    "machine-99 state started region ams app app-7 note load check passing",
  );
  const body = zstd.compressBody(changeset);
  expect(create({}).compressBody(changeset)?.length ?? 1000).toBeGreaterThan(body?.length ?? 1000);
  const payload = decodeUniPayload(frameBody(body ?? new Uint8Array(), 0));
  const compressed =
    payload.ok && payload.value.kind === "compressedChange" && payload.value.compressed;
  expect(frameDictionaryId(compressed || new Uint8Array())).toBe(DICTIONARY_ID);
  expect(readBody(zstd, body)).toEqual([changeset]);
});

test("a frame of a dictionary that is in the folder is read, one of another is counted and lost", () => {
  const body = create({ file }).compressBody(machineRow("state started region ams app app-7 note"));
  const reading = create({ isEnabled: false, folder });
  expect(readBody(reading, body)).toHaveLength(1);
  const lacking = create({});
  expect(readBody(lacking, body)).toMatch(/^Dictionary mismatch/);
  expect(lacking.stats.broadcast).toMatchObject({ undecodable: 1, unknownDictionaries: 1 });
});

test("a folder with something else in it gives what it has, and says what is wrong", () => {
  const mixed = mkdtempSync(join(folder, "mixed-"));
  writeFileSync(join(mixed, "a.zdict"), DICTIONARY);
  writeFileSync(join(mixed, "readme.txt"), "no dictionary");
  const zstd = new Zstd({ isEnabled: true, level: 3, folder: mixed, file: join(mixed, "gone") });
  const { loaded, problems } = zstd.reload();
  expect(loaded).toBe(1);
  expect(problems).toEqual([
    expect.stringMatching(/readme\.txt: no zstd dictionary/),
    expect.stringMatching(/gone: /),
  ]);
});

test("a dictionary that was there stays when a reload cannot read all", () => {
  const zstd = create({ folder });
  const body = create({ file }).compressBody(machineRow("state started region ams app app-7 note"));
  rmSync(file);
  writeFileSync(join(folder, "bad.zdict"), "noise");
  expect(zstd.reload().problems).toHaveLength(1);
  expect(readBody(zstd, body)).toHaveLength(1);
  rmSync(join(folder, "bad.zdict"));
  writeFileSync(file, DICTIONARY);
});

test("a bomb is refused at ten mebibytes, whatever it says of itself", () => {
  const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
  expect(bomb.length).toBeLessThan(10_000);
  const zstd = create({});
  expect(zstd.decompress(bomb)).toMatchObject({ ok: false });
  expect(zstd.stats.broadcast.undecodable).toBe(1);
});

test("no bytes make a decompression throw", () => {
  const zstd = create({ folder });
  const head = fc.constant([0x28, 0xb5, 0x2f, 0xfd]);
  const bytes = fc.tuple(fc.oneof(head, fc.constant([])), fc.uint8Array({ maxLength: 60 }));
  fc.assert(
    fc.property(bytes, ([start, rest]) => {
      const frame = Uint8Array.from([...start, ...rest]);
      zstd.decompress(frame);
      zstd.decompressAnswer(frame);
      decompress(frame);
      frameDictionaryId(frame);
    }),
  );
});

function create(options: Partial<ZstdOptions>): Zstd {
  const zstd = new Zstd({ isEnabled: true, level: 3, folder: null, file: null, ...options });
  zstd.reload();
  return zstd;
}

function readBody(zstd: Zstd, body: Uint8Array | null): readonly unknown[] | string {
  const payload = decodeUniPayload(frameBody(body ?? new Uint8Array(), 0));
  if (!payload.ok || payload.value.kind !== "compressedChange") return "not compressed";
  const changesets = zstd.decompress(payload.value.compressed);
  return changesets.ok ? changesets.value : changesets.error;
}

/** Bytes in which nothing repeats: a linear congruential generator's highest byte. */
function noise(length: number): Uint8Array {
  let state = 1;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
}

function machineRow(note: string | Uint8Array): FullChangeset {
  const pk = new Uint8Array([1, 11, 1, 97]);
  const base = { table: "machines", pk, colVersion: 1, cl: 1 };
  return {
    kind: "full",
    actorId: "00112233-4455-6677-8899-aabbccddeeff",
    version: 1,
    changes: [{ ...base, cid: "note", val: note, seq: 0 }],
    seqs: { start: 0, end: 0 },
    lastSeq: 0,
    ts: 1n,
  };
}
