/** Replicas of one broadcast method or several, on a network of its own under virtual time. */
import { createPrng, type Prng } from "#base/prng.ts";
import { Broadcast } from "../core/broadcast/broadcast.ts";
import { Plumtree } from "../core/broadcast/plumtree.ts";
import type { PlumtreeConfig } from "../core/broadcast/plumtree-types.ts";
import { changeKey } from "../core/broadcast/seen-cache.ts";
import { actorId, change, member } from "../core/broadcast/tree-fixture.ts";
import {
  BROADCAST_DEFAULTS,
  type Broadcaster,
  type BroadcastMember,
} from "../core/broadcast/types.ts";
import { decodeUniFrame } from "../core/wire/uni-payload.ts";
import { EventQueue } from "./event-queue.ts";

/** How a replica of the network broadcasts. */
export type TreeMethod = "gossip" | Partial<PlumtreeConfig>;

/** Replicas in one place, 1 ms apart, under virtual time. */
export class TreeNetwork {
  readonly queue = new EventQueue();
  readonly machines: (Broadcaster | null)[];
  /** Keys of the changes that each replica has. */
  readonly known: Set<string>[];
  readonly #members: BroadcastMember[];
  readonly #prng: Prng;
  readonly #lossShare: () => number;
  copies = 0;

  constructor(options: {
    readonly seed: number;
    readonly methods: readonly TreeMethod[];
    /** Ring in which one replica sees another. */
    readonly ring?: (one: number, other: number) => number | null;
    /** Share of streams that are lost at present. */
    readonly lossShare?: () => number;
  }) {
    const { seed, methods, ring = () => 0 } = options;
    this.#prng = createPrng(seed);
    this.#lossShare = options.lossShare ?? (() => 0);
    this.#members = methods.map((_, n) => member(n, null));
    this.known = methods.map(() => new Set());
    this.machines = methods.map((method, n) => {
      const config = { ...BROADCAST_DEFAULTS, actorId: actorId(n), clusterId: 0 };
      const prng = createPrng([seed, n]);
      if (method === "gossip") return new Broadcast(config, prng);
      const plumtree = { ...config.plumtree, ...method };
      const isKnown = (id: Parameters<typeof changeKey>[0]): boolean =>
        this.known[n]?.has(changeKey(id)) ?? false;
      return new Plumtree({ ...config, plumtree }, { prng, isKnown });
    });
    for (const [n, machine] of this.machines.entries()) {
      const members = methods.map((_, other) => member(other, ring(n, other)));
      machine?.handle({ kind: "members", members }, 0);
      this.#perform(n);
    }
  }

  /** The n-th machine as a tree's. */
  tree(n: number): Plumtree {
    const machine = this.machines[n];
    if (!(machine instanceof Plumtree)) throw new Error("not a tree");
    return machine;
  }

  /** A transaction of the n-th replica. */
  write(n: number, version: number): string {
    const changeset = change(n, version);
    this.known[n]?.add(changeKey(changeset));
    this.machines[n]?.handle({ kind: "committed", changesets: [changeset] }, this.queue.nowMs);
    this.#perform(n);
    return changeKey(changeset);
  }

  /** Ends a replica; the others learn of it when `bury` is called. */
  kill(n: number): void {
    this.machines[n] = null;
  }

  /** Tells all replicas who is alive. */
  bury(ring: (one: number, other: number) => number | null = () => 0): void {
    const alive = this.machines.flatMap((machine, n) => (machine === null ? [] : [n]));
    for (const n of alive) {
      const members = alive.map((other) => member(other, ring(n, other)));
      this.machines[n]?.handle({ kind: "members", members }, this.queue.nowMs);
      this.#perform(n);
    }
  }

  /** Living replicas that lack a change. */
  lacking(key: string): number[] {
    return this.machines.flatMap((machine, n) =>
      machine === null || this.known[n]?.has(key) === true ? [] : [n],
    );
  }

  /** Living replicas to which no links of living ones lead from the n-th. */
  unreached(n: number): number[] {
    const reached = new Set([n]);
    for (const one of reached) {
      const links = this.machines[one]?.links;
      for (const id of [...(links?.eager ?? []), ...(links?.lazy ?? [])]) {
        const other = this.#members.findIndex((each) => each.actorId === id);
        if (this.machines[other] !== null) reached.add(other);
      }
    }
    return this.machines.flatMap((machine, other) =>
      machine === null || reached.has(other) ? [] : [other],
    );
  }

  #perform(n: number): void {
    const machine = this.machines[n];
    if (!machine) return;
    for (const output of machine.drain()) {
      if (output.kind !== "send") continue;
      const target = this.#members.findIndex(({ address }) => address === output.target);
      const isLost = this.machines[target] === null || this.#prng.next() < this.#lossShare();
      if (!isLost) this.queue.after(1, () => this.#receive(target, output.frames));
      // A lost stream is one that its sender believes in: a connection that dies says nothing.
      this.queue.after(2, () => {
        machine.handle({ kind: "sent", id: output.id, ok: true }, this.queue.nowMs);
        this.#perform(n);
      });
    }
    this.#planWake(n, machine);
  }

  #planWake(n: number, machine: Broadcaster): void {
    const deadlineMs = machine.deadlineMs();
    if (deadlineMs === Infinity) return;
    this.queue.at(Math.max(deadlineMs, this.queue.nowMs + 1), () => {
      if (this.machines[n] !== machine || machine.deadlineMs() > this.queue.nowMs) return;
      machine.handle({ kind: "tick" }, this.queue.nowMs);
      this.#perform(n);
    });
  }

  #receive(n: number, frames: readonly Uint8Array[]): void {
    const machine = this.machines[n];
    if (!machine) return;
    for (const frame of frames.toReversed()) {
      const decoded = decodeUniFrame(frame);
      if (!decoded.ok) throw new Error("own frame refused");
      const { payload, body } = decoded.value;
      if (payload.kind === "plumtree" && payload.message.kind !== "gossip") {
        machine.handle({ kind: "plumtree", message: payload.message }, this.queue.nowMs);
      } else {
        this.#take(n, { payload, body, frame });
      }
    }
    this.#perform(n);
  }

  #take(
    n: number,
    of: {
      readonly payload: Extract<
        ReturnType<typeof decodeUniFrame>,
        { ok: true }
      >["value"]["payload"];
      readonly body: Uint8Array | null;
      readonly frame: Uint8Array;
    },
  ): void {
    const { payload, body, frame } = of;
    const gossip =
      payload.kind === "plumtree" && payload.message.kind === "gossip" ? payload.message : null;
    const change = gossip?.body ?? payload;
    if (change.kind !== "change") return;
    const [changeset] = change.changesets;
    if (changeset === undefined || changeset.actorId === actorId(n)) return;
    const key = changeKey(changeset);
    const isNews = this.known[n]?.has(key) === false;
    if (isNews) this.known[n]?.add(key);
    else this.copies += 1;
    const arrival = { changeset, payload: gossip === null ? frame : null, body, gossip };
    this.machines[n]?.handle({ ...arrival, kind: "received", isNews }, this.queue.nowMs);
  }
}
