import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AdminFrames, encodeMessage, parseRequest } from "./admin-messages.ts";

const ID = "0d7adbf7-be2c-4813-9af3-338cd19ba9c3";

describe("requests", () => {
  test.each([
    ["Ping", { kind: "ping" }],
    ["Reload", { kind: "reload" }],
    ["ReloadDicts", { kind: "reloadDicts" }],
    [{ Sync: "Generate" }, { kind: "syncGenerate" }],
    [{ Sync: "ReconcileGaps" }, { kind: "reconcileGaps" }],
    [{ Sync: "CheckBookieConsistency" }, { kind: "checkBookieConsistency" }],
    [
      { Sync: { ProcessBufferedChanges: { actor_id: ID, version: 7, chunk_size: 100 } } },
      { kind: "processBufferedChanges", actorId: ID, version: 7 },
    ],
    [{ Cluster: "Rejoin" }, { kind: "rejoin" }],
    [{ Cluster: "Members" }, { kind: "members" }],
    [{ Cluster: "MembershipStates" }, { kind: "membershipStates" }],
    [{ Cluster: { SetId: 65_535 } }, { kind: "setClusterId", clusterId: 65_535 }],
    [
      { Actor: { Version: { actor_id: ID.toUpperCase(), version: 1 } } },
      { kind: "actorVersion", actorId: ID, version: 1 },
    ],
    [{ Subs: "List" }, { kind: "subsList" }],
    [{ Subs: { Info: { hash: null, id: ID } } }, { kind: "subsInfo", hash: null, id: ID }],
    [{ Log: { Set: { filter: "debug" } } }, { kind: "logSet", filter: "debug" }],
    [{ Log: "Reset" }, { kind: "logReset" }],
    [{ Plumtree: "Stats" }, { kind: "plumtreeStats" }],
    [{ Edge: { Routes: { limit: 10 } } }, { kind: "edgeRoutes", limit: 10 }],
    [{ Edge: { Explain: { host: "a.b" } } }, { kind: "edgeExplain", host: "a.b" }],
  ])("%j is understood", (message, request) => {
    expect(parse(message)).toEqual({ ok: true, value: request });
  });

  test.each([
    ["Pong"],
    [null],
    [{ Cluster: { SetId: 65_536 } }],
    [{ Cluster: { SetId: "1" } }],
    [{ Cluster: "Members", Sync: "Generate" }],
    [{ Actor: { Version: { actor_id: "nobody", version: 1 } } }],
    [{ Actor: { Version: { actor_id: ID, version: 1.5 } } }],
    [{ Log: { Set: null } }],
    [{ Subs: { Info: null } }],
    [{ Edge: { Routes: { limit: 1e9 } } }],
  ])("%j is unknown, and is told so", (message) => {
    expect(parse(message)).toMatchObject({ ok: false, error: expect.stringMatching(/unknown/) });
  });

  test("no bytes make the parser throw", () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), fc.json().map(bytesOf)), (bytes) => {
        expect(typeof parseRequest(bytes).ok).toBe("boolean");
      }),
    );
  });
});

describe("frames", () => {
  test("come out whole however the stream was cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.json(), { maxLength: 5 }),
        fc.infiniteStream(fc.nat(9)),
        (all, cuts) => {
          const bytes = Buffer.concat(all.map(encodeMessage));
          const frames = new AdminFrames(1_000);
          const found: unknown[] = [];
          for (let at = 0; at < bytes.length;) {
            const end = at + 1 + (cuts.next().value ?? 0);
            frames.push(bytes.subarray(at, end));
            at = end;
            for (let next = frames.next(); next.ok && next.value !== null; next = frames.next()) {
              found.push(JSON.parse(Buffer.from(next.value).toString()));
            }
          }
          expect(found).toEqual(all);
        },
      ),
    );
  });

  test("longer than allowed are refused from their length alone", () => {
    const frames = new AdminFrames(10);
    frames.push(Uint8Array.of(0xff, 0xff, 0xff, 0xff));
    expect(frames.next()).toMatchObject({
      ok: false,
      error: expect.stringContaining("4294967295"),
    });
  });
});

function parse(message: unknown): unknown {
  return parseRequest(encodeMessage(message).subarray(4));
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
