import { expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import type { ReplicaCore } from "../core/replica-core.ts";
import type { ReplicaInput } from "../core/replica-messages.ts";
import { placeholderActor } from "../core/swim/actor.ts";
import { encodePacket } from "../core/swim/codec.ts";
import { ReplicaDriver, type ReplicaDriverOptions } from "./replica-driver.ts";

const SENDER = "00112233-4455-6677-8899-aabbccddeeff";
const OTHER = "ffeeddcc-bbaa-9988-7766-554433221100";

test("a SWIM packet in another's name than the certificate's is dropped and counted", () => {
  const heard: ReplicaInput[] = [];
  const core = {
    handle: (input: ReplicaInput) => heard.push(input),
    drain: () => [],
    deadlineMs: () => Infinity,
  } as unknown as ReplicaCore;
  const log = createLogger({ level: "error", nowMs: () => 0, write: () => undefined });
  const options = { core, log, applyLimitMs: 1_000 } as unknown as ReplicaDriverOptions;
  const driver = new ReplicaDriver(options);
  const bytes = encodePacket({
    source: { id: SENDER, addr: "10.0.0.1:4001", ts: 1n, clusterId: 0, memberId: null },
    sourceIncarnation: 0,
    target: placeholderActor("10.0.0.2:4001"),
    message: { kind: "announce" },
    members: null,
  });
  driver.transportEvents.datagram(bytes, "10.0.0.1:4001", OTHER);
  expect([heard.length, driver.stats.badPackets]).toEqual([0, 1]);
  driver.transportEvents.datagram(bytes, "10.0.0.1:4001", SENDER);
  // Without verified actors there is nothing to compare with.
  driver.transportEvents.datagram(bytes, "10.0.0.1:4001");
  expect([heard.length, driver.stats.badPackets]).toEqual([2, 1]);
  driver.stop({ leave: false });
});
