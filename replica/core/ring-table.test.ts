import { expect, test } from "vitest";
import { RingTable } from "./ring-table.ts";

const PEER = "192.0.2.1:8787";

test.each([
  [0.3, 0],
  [5.9, 0],
  [6, 1],
  [15, 2],
  [50, 3],
  [100, 4],
  [200, 5],
  [900, 5],
])("a first sample of %d ms assigns ring %d directly", (rttMs, ring) => {
  const table = new RingTable();
  expect(table.sample(PEER, rttMs)).toBe(true);
  expect(table.ring(PEER)).toBe(ring);
});

test("an address without a sample has no ring", () => {
  expect(new RingTable().ring(PEER)).toBeNull();
});

test("a shorter path moves a peer one ring per sample, and only 2 ms past the border", () => {
  const table = new RingTable();
  table.sample(PEER, 120);
  expect(table.sample(PEER, 99)).toBe(false);
  expect(table.sample(PEER, 3)).toBe(true);
  expect(table.ring(PEER)).toBe(3);
  table.sample(PEER, 3);
  table.sample(PEER, 3);
  table.sample(PEER, 3);
  expect(table.ring(PEER)).toBe(0);
});

test("a longer path counts once the short samples have left the window", () => {
  const table = new RingTable();
  table.sample(PEER, 3);
  for (let index = 0; index < 19; index++) expect(table.sample(PEER, 30)).toBe(false);
  expect(table.sample(PEER, 30)).toBe(true);
  expect(table.ring(PEER)).toBe(1);
  expect(table.rttMs(PEER)).toBe(30);
});

test("a forgotten peer starts anew", () => {
  const table = new RingTable();
  table.sample(PEER, 120);
  table.forget(PEER);
  expect(table.ring(PEER)).toBeNull();
});
