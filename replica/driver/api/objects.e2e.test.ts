import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { StoredObject } from "../store/objects.ts";
import { ApiFixture } from "./api-fixture.ts";

// Objects over the real server and store. The replica's node is called `here`.

let api: ApiFixture;

beforeAll(async () => {
  api = await ApiFixture.start();
});

afterEach(() => void api.commits.splice(0));
afterAll(() => api.stop());

test("a whole machine is one version, and the same again none", async () => {
  const first = await api.json("PUT", "/v1/machines/m1", MACHINE);
  expect(first).toEqual({ status: 200, body: { version: expect.any(Number), warnings: [] } });
  expect(api.commits.map((commit) => commit.version)).toEqual([first.body?.["version"]]);
  const again = await api.json("PUT", "/v1/machines/m1", MACHINE);
  expect(again).toEqual({ status: 200, body: { version: null, warnings: [] } });
  expect(api.commits).toHaveLength(1);
});

test("a machine reads as it was put, with its owner", async () => {
  await api.json("PUT", "/v1/machines/m2", MACHINE);
  const { status, body } = await api.json("GET", "/v1/machines/m2");
  expect(status).toBe(200);
  expect(body).toEqual({ ...MACHINE, id: "m2", node: "here", updated_at: expect.any(Number) });
});

test("a put replaces all services and checks of the machine", async () => {
  await api.json("PUT", "/v1/machines/m3", MACHINE);
  const services = [{ ...MACHINE.services[0], name: "other", address: "192.0.2.7:99" }];
  await api.json("PUT", "/v1/machines/m3", { ...MACHINE, services, checks: [] });
  const { body } = await api.json("GET", "/v1/machines/m3");
  expect(body).toMatchObject({ services, checks: [] });
});

test("an unknown field is kept out, with a warning that names its place", async () => {
  const service = { ...MACHINE.services[0], weight: 3 };
  const sent = { ...MACHINE, colour: "red", services: [service] };
  const { status, body } = await api.json("PUT", "/v1/machines/m4", sent);
  expect(status).toBe(200);
  expect(body?.["warnings"]).toEqual([
    "services.0.weight: unknown field, left out",
    "colour: unknown field, left out",
  ]);
  expect((await api.json("GET", "/v1/machines/m4")).body).not.toHaveProperty("colour");
});

test.each(["10.0.0.1", "10.0.0.1:0", "10.0.0.1:70000", "example.org:80", "::1:80", "[::1]", ""])(
  "a machine with the address %o is refused whole, and told where and what is allowed",
  async (address) => {
    const services = [MACHINE.services[0], { name: "bad", address }];
    const { status, body } = await api.json("PUT", "/v1/machines/bad", { ...MACHINE, services });
    expect(status).toBe(422);
    expect(body).toEqual({
      error: "the document does not fit",
      places: [
        `services.1.address: found ${JSON.stringify(address)}; allowed: ` +
          "an IP address and a port, as in 192.0.2.1:80 or [2001:db8::1]:80",
      ],
    });
    expect(api.commits).toEqual([]);
    expect((await api.json("GET", "/v1/machines/bad")).status).toBe(404);
    const rows = await api.query("SELECT count(*) FROM services WHERE machine_id = 'bad'");
    expect(rows.lines[1]).toEqual({ row: [1, [0]] });
  },
);

test("every error of a document is listed in one answer", async () => {
  const { status, body } = await api.json("PUT", "/v1/machines/bad", {
    app: "no spaces here",
    state: "STARTED",
    services: [
      { name: "a", address: "nowhere", soft_limit: -1, hard_limit: "many" },
      { name: "b", address: "[2001:db8::1]:80", soft_limit: 1.5 },
    ],
    checks: [{ service: "a", name: "http", status: "fine" }],
  });
  expect(status).toBe(422);
  expect(body?.["places"]).toEqual([
    'app: found "no spaces here"; allowed: 1 to 128 letters, digits, . _ : -',
    'state: found "STARTED"; allowed: a state in lower case, such as started or stopped',
    expect.stringMatching(/^services\.0\.address: found "nowhere"; allowed: an IP address/),
    "services.0.soft_limit: found -1; allowed: a whole number from 0 to 1000000000",
    'services.0.hard_limit: found "many"; allowed: a whole number from 0 to 1000000000',
    "services.1.soft_limit: found 1.5; allowed: a whole number from 0 to 1000000000",
    'checks.0.status: found "fine"; allowed: "passing", "warning", "critical"',
  ]);
});

test.each([
  ["nothing", undefined, 415],
  ["a list", [], 422],
  ["null", null, 422],
  ["a text", "machine", 422],
])("%s in place of a document is refused", async (_what, body, status) => {
  const headers: Record<string, string> =
    body === undefined ? {} : { "content-type": "application/json" };
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const answer = await api.call({ method: "PUT", path: "/v1/machines/none", headers, ...sent });
  expect(answer.status).toBe(status);
  expect(answer.text).not.toBe("");
});

test.each([
  ["nodes", { region: "ams" }],
  ["machines", { app: "shop", state: "started" }],
  ["apps", { name: "Shop" }],
  ["hostnames", { app: "shop" }],
])("a row of %s that another node owns answers 409 and stays", async (kind, document) => {
  const key = kind === "hostnames" ? "hostname" : "id";
  const owner = kind === "nodes" ? "region" : "node_id";
  const insert = `INSERT INTO ${kind} (${key}, ${owner}) VALUES ('theirs', 'there')`;
  expect((await api.json("POST", "/v1/transactions", [insert])).status).toBe(200);
  api.commits.splice(0);
  for (const [method, body] of [["PUT", document] as const, ["DELETE", undefined] as const]) {
    const answer = await api.json(method, `/v1/${kind}/theirs`, body);
    expect(answer.status).toBe(409);
    expect(answer.body).toMatchObject({ code: "STORE_OWNER" });
  }
  expect(api.commits).toEqual([]);
  expect((await api.json("GET", `/v1/${kind}/theirs`)).status).toBe(200);
});

test("an object is gone after its deletion, and a second one finds nothing", async () => {
  await api.json("PUT", "/v1/machines/gone", MACHINE);
  const { status, body } = await api.json("DELETE", "/v1/machines/gone");
  expect([status, body]).toEqual([200, { version: expect.any(Number) }]);
  expect((await api.json("GET", "/v1/machines/gone")).status).toBe(404);
  expect((await api.json("DELETE", "/v1/machines/gone")).status).toBe(404);
  const parts = "SELECT machine_id FROM services WHERE machine_id = 'gone'";
  expect((await api.query(parts)).lines).toHaveLength(2);
});

test("apps, hostnames and the own node are put and read", async () => {
  const node = { ...NODE, latitude: 52, longitude: 4.9 };
  expect((await api.json("PUT", "/v1/nodes/here", node)).status).toBe(200);
  expect((await api.json("GET", "/v1/nodes/here")).body).toMatchObject({ id: "here", ...node });
  await api.json("PUT", "/v1/apps/shop", { name: "Shop" });
  expect((await api.json("GET", "/v1/apps/shop")).body).toMatchObject({ name: "Shop" });
  await api.json("PUT", "/v1/hostnames/Shop.Example", { app: "shop" });
  expect((await api.json("GET", "/v1/hostnames/shop.example")).body).toMatchObject({ app: "shop" });
  expect((await api.json("GET", "/v1/hostnames/SHOP.example")).status).toBe(200);
  expect((await api.json("DELETE", "/v1/hostnames/SHOP.example")).status).toBe(200);
});

test("lists come in pages in order of ids", async () => {
  for (const id of ["p1", "p2", "p3"]) await api.json("PUT", `/v1/apps/${id}`, { name: id });
  const first = await api.json("GET", "/v1/apps?after=p&limit=2");
  expect(idsOf(first.body, "apps")).toEqual(["p1", "p2"]);
  expect(first.body?.["next"]).toBe("p2");
  const second = await api.json("GET", "/v1/apps/?after=p2&limit=2");
  expect(idsOf(second.body, "apps").slice(0, 1)).toEqual(["p3"]);
  for (const limit of ["0", "-1", "x", "10001", ""]) {
    expect((await api.call({ path: `/v1/apps?limit=${limit}` })).status).toBe(400);
  }
});

test.each([
  ["a:b.c_d-e", 200],
  ["a%3Ab", 200],
  ["a".repeat(128), 200],
  ["a".repeat(129), 422],
  ["a%20b", 422],
  ["a%2Fb", 422],
  ["%00", 422],
  ["%C3%BC", 422],
  ["-a", 422],
  ["%zz", 400],
  ["a/b", 404],
  ["%27%3B%20DROP%20TABLE%20apps", 422],
])("the id %s answers %i", async (id, status) => {
  const answer = await api.call({
    method: "PUT",
    path: `/v1/apps/${id}`,
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  expect(answer.status).toBe(status);
});

test("the greatest limit is taken, and numbers of rows come through with their type", async () => {
  const services = [{ ...MACHINE.services[0], soft_limit: 1_000_000_000, hard_limit: 0 }];
  const put = await api.json("PUT", "/v1/machines/big", { ...MACHINE, services });
  expect(put.status).toBe(200);
  const headers = { "content-type": "application/json" };
  const raw = '["SELECT ?, -9223372036854775808, 1.0, 1e300", [9007199254740993]]';
  const { text } = await api.call({ method: "POST", path: "/v1/queries", headers, body: raw });
  expect(text).toContain('{"row":[1,[9007199254740993,-9223372036854775808,1.0,1e+300]]}');
});

test.each([
  ["/v1/machines/m1", "POST", "GET,PUT,DELETE"],
  ["/v1/machines", "PUT", "GET"],
  ["/v1/queries", "GET", "POST"],
  ["/v1/status", "POST", "GET"],
])("%s does not take %s, and says what it takes", async (path, method, allow) => {
  const answer = await api.call({ method, path });
  expect([answer.status, answer.headers["allow"], answer.text]).toEqual([405, allow, ""]);
});

function idsOf(body: Record<string, unknown> | null, kind: string): string[] {
  return ((body?.[kind] ?? []) as StoredObject[]).map((one) => one.id);
}

const NODE = {
  actor: "3dd0d71a-1055-49b3-b889-32a4737075a7",
  region: "ams",
  kind: "edge",
  latitude: null,
  longitude: null,
  address: "[2001:db8::1]:8787",
};

const MACHINE = {
  app: "shop",
  region: "ams",
  state: "started",
  services: [
    {
      name: "web",
      address: "192.0.2.1:8080",
      protocol: "http",
      soft_limit: 20,
      hard_limit: 25,
    },
    {
      name: "web6",
      address: "[2001:db8::1]:8080",
      protocol: "http",
      soft_limit: 0,
      hard_limit: 0,
    },
  ],
  checks: [{ service: "web", name: "http", status: "passing" }],
};
