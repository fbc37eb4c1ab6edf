/**
 * Metrics under Corrosion's names, scraped from three workers: each moves when the thing that it
 * counts happens. Figures reach a scrape a second later, so they are waited for.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  CORROSION_DECLARATIONS,
  CORROSION_HISTOGRAMS,
} from "../replica/driver/corrosion-metrics.ts";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { get, until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";

let cluster: Cluster;
let one: TestHost;
let two: TestHost;
let three: TestHost;

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "one", kind: "worker" },
    { name: "two", kind: "worker", bootstrap: ["one"] },
    { name: "three", kind: "worker", bootstrap: ["one", "two"] },
  ]);
  [one, two, three] = [cluster.host("one"), cluster.host("two"), cluster.host("three")];
  await cluster.start("one", "two", "three");
  for (const host of [one, two, three]) {
    await until("two others", async () => (await host.metric("corro_gossip_members ")) === 2);
  }
});

afterAll(async () => {
  await cluster.close();
});

test("a scrape has every name of the table, and histograms have Corrosion's buckets", async () => {
  const { text } = await get(one.metricsPort, "/metrics", { ip: one.ip });
  const types = [...text.matchAll(/^# TYPE (corro_\S+) (\S+)$/gm)].map(([, name, type]) => ({
    name,
    type,
  }));
  expect(types).toEqual(CORROSION_DECLARATIONS.map(({ name, type }) => ({ name, type })));
  for (const name of Object.values(CORROSION_HISTOGRAMS)) {
    const bounds = [...text.matchAll(new RegExp(`^${name}_bucket\\{.*le="([^"]+)"`, "gm"))];
    const found = new Set(bounds.map((match) => match[1]));
    const wanted = "0.001 0.005 0.025 0.05 0.1 0.2 1 2 3 4 5 10 30 60 +Inf";
    expect([...found].join(" "), name).toBe(wanted);
  }
});

test("transactions and queries of the right form are counted, and how long queries took", async () => {
  const before = await apiFigures();
  await insert(one, "first");
  await one.api("POST", "/v1/transactions", []);
  await one.api("POST", "/v1/transactions", { not: "a list" });
  await one.api("POST", "/v1/queries", "SELECT 1");
  await one.api("POST", "/v1/queries", "SELECT nothing");
  await one.api("POST", "/v1/queries", 7);
  const wanted = {
    transactions: (before["transactions"] ?? 0) + 1,
    queries: (before["queries"] ?? 0) + 2,
    success: (before["success"] ?? 0) + 1,
    error: (before["error"] ?? 0) + 1,
  };
  await until("the requests", async () => same(await apiFigures(), wanted));
});

test("streams are counted by their kind while they last", async () => {
  const aborter = new AbortController();
  const { signal } = aborter;
  const at = `http://${one.apiAddress}/v1`;
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify("SELECT id FROM apps");
  // Kept: the stream of an answer that is collected as garbage is cut.
  const open = [
    await fetch(`${at}/updates/apps`, { method: "POST", signal }),
    await fetch(`${at}/subscriptions`, { method: "POST", headers, body, signal }),
    await fetch(`${at}/subscriptions`, { method: "POST", headers, body, signal }),
  ];
  const streams = async (source: string): Promise<number> =>
    await one.metric(`corro_api_active_streams{source="${source}"`);
  await until("three streams", async () => {
    return (await streams("updates")) === 1 && (await streams("subscriptions")) === 2;
  });
  expect(open.map(({ status }) => status)).toEqual([200, 200, 200]);
  aborter.abort();
  await until("none", async () => {
    return (await streams("updates")) + (await streams("subscriptions")) === 0;
  });
});

test("a change is counted where it is made, received, committed and seen twice", async () => {
  const names = {
    received: "corro_agent_changes_recv",
    news: 'corro_broadcast_recv_count{kind="change"}',
    committed: 'corro_changes_committed{source="remote"}',
    started: "corro_agent_changes_processing_started",
    batches: "corro_agent_changes_batch_spawned",
    lags: "corro_agent_changes_commit_lag_seconds_count",
    bytes: 'corro_peer_stream_bytes_recv_total{type="uni"}',
    streams: 'corro_peer_stream_accept_total{type="uni"}',
  };
  const before = await figures(two, names);
  const local = 'corro_changes_committed{source="local"}';
  const localBefore = await one.metric(local);
  const sentBefore = await one.metric('corro_transport_tx_bytes_v2_total{traffic="broadcast"}');
  await insert(one, "second");
  await until("it is counted everywhere", async () => {
    const after = await figures(two, names);
    return Object.keys(names).every((name) => (after[name] ?? 0) > (before[name] ?? 0));
  });
  // Name and owner of the app.
  await until("columns of its own", async () => (await one.metric(local)) >= localBefore + 2);
  await until("bytes sent", async () => {
    return (
      (await one.metric('corro_transport_tx_bytes_v2_total{traffic="broadcast"}')) > sentBefore
    );
  });
  // Whoever gets it passes it on to the third, which has it from its origin.
  await until("a copy", async () => (await copies()) > 0);
});

test("a member that leaves and comes back is counted, and what it fetches by sync", async () => {
  const removed = 'corro_gossip_member_removed{traffic="foca",kind="member_down"}';
  const added = 'corro_gossip_member_added{traffic="foca"}';
  const addedBefore = await one.metric(added);
  three.signal("SIGTERM");
  expect((await three.ending()).code).toBe(EXIT.ok);
  await until("it is gone", async () => (await one.metric(removed)) === 1);
  expect(await one.metric('corro_swim_notification{type="memberdown"}')).toBe(1);
  expect(await one.metric("corro_gossip_members ")).toBe(1);
  expect(await one.metric("corro_gossip_member_states ")).toBe(2);
  for (const id of ["third", "fourth"]) await insert(one, id);
  await cluster.start("three");
  await until("it is back", async () => (await one.metric(added)) === addedBefore + 1);
  const client = [
    "corro_sync_client_member",
    "corro_sync_client_req_sent",
    "corro_sync_changes_recv",
    "corro_sync_chunk_recv_bytes",
    "corro_sync_chunk_sent_bytes",
  ];
  await until("what it asked and got", async () => {
    const found = await Promise.all(client.map((name) => three.metric(name)));
    return found.every((value) => value > 0);
  });
  for (const name of ["corro_sync_requests_recv", "corro_sync_changes_sent"]) {
    await until(name, async () => (await one.metric(name)) + (await two.metric(name)) > 0);
  }
  await until("no gaps", async () => (await three.metric("corro_db_gaps_sum")) === 0);
});

test("connections, datagrams, round trips and the database's size are counted", async () => {
  const names = [
    "corro_peer_connection_accept_total",
    'corro_peer_stream_accept_total{type="bi"}',
    "corro_peer_datagram_recv_total",
    "corro_peer_datagram_bytes_recv_total",
    'corro_peer_datagram_sent_total{traffic="foca"}',
    'corro_transport_tx_bytes_v2_total{traffic="foca"}',
    "corro_transport_connections",
    "corro_transport_rtt_v2_seconds_count",
    "corro_gossip_config_max_transmissions",
  ];
  await until("all of them", async () => {
    const found = await Promise.all(names.map((name) => one.metric(name)));
    return found.every((value) => value > 0);
  });
  expect(await one.metric("corro_gossip_config_num_indirect_probes")).toBe(3);
  await until("sizes of the files", async () => {
    const sizes = ["patina.db", "patina.db-wal"].map(
      (name) => statSync(join(one.folder, name)).size,
    );
    const found = [await one.metric("corro_db_size"), await one.metric("corro_db_wal_size")];
    return found.join(" ") === sizes.join(" ");
  });
});

async function insert(host: TestHost, id: string): Promise<void> {
  const sql = "INSERT INTO apps (id, name, node_id) VALUES (?, ?, ?)";
  const answer = await host.api("POST", "/v1/transactions", [[sql, [id, id, host.options.name]]]);
  expect(answer).toMatchObject({ status: 200 });
}

async function figures(
  host: TestHost,
  names: Readonly<Record<string, string>>,
): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const [key, name] of Object.entries(names)) found[key] = await host.metric(name);
  return found;
}

async function apiFigures(): Promise<Record<string, number>> {
  return await figures(one, {
    transactions: "corro_api_connection_count",
    queries: "corro_api_queries_count",
    success: 'corro_api_queries_processing_time_seconds_count{result="success"}',
    error: 'corro_api_queries_processing_time_seconds_count{result="error"}',
  });
}

async function copies(): Promise<number> {
  let sum = 0;
  for (const host of [one, two, three]) {
    sum += await host.metric("corro_broadcast_duplicate_count");
  }
  return sum;
}

function same(found: Record<string, number>, wanted: Record<string, number>): boolean {
  return Object.entries(wanted).every(([name, value]) => found[name] === value);
}
