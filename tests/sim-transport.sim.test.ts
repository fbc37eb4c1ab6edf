/** The simulated network, held to the suite that QUIC passes. */
import { createPrng } from "#base/prng.ts";
import { describeTransport, type TransportNetwork } from "../replica/driver/quic/conformance.ts";
import { EventQueue } from "../replica/sim/event-queue.ts";
import { calmNetwork } from "../replica/sim/setup.ts";
import { type ByteNetwork, SimTransport } from "../replica/sim/sim-transport.ts";
import { SimNetwork } from "../replica/sim/sim-network.ts";

describeTransport("the simulated network", async () => createNetwork());

function createNetwork(): TransportNetwork {
  const queue = new EventQueue();
  const faults = calmNetwork({ min: 1, max: 20 });
  const network: ByteNetwork = new SimNetwork({ queue, prng: createPrng(1), faults });
  let opened = 0;
  let isOver = false;
  // The suite also waits for promises of the transport outside of `until`.
  void (async () => {
    while (!isOver) {
      queue.runUntil(queue.nowMs + 1);
      await nextTurn();
    }
  })();
  return {
    vacant: "10.0.0.99:8787",
    open(events) {
      opened += 1;
      const local = `10.0.0.${opened}:8787`;
      return Promise.resolve(new SimTransport({ local, network, queue, events }));
    },
    async until(condition) {
      for (let steps = 0; !condition(); steps += 1) {
        if (steps > STEPS_MAX)
          throw new Error("a minute has passed and the condition does not hold");
        await nextTurn();
      }
    },
    [Symbol.asyncDispose]: () => {
      isOver = true;
      return Promise.resolve();
    },
  };
}

/** Lets what promises have settled go on. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A minute of virtual time: longer than any timeout of the network. */
const STEPS_MAX = 60_000;
