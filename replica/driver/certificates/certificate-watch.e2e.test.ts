/** Real files, real certificates and real handshakes; the clock is the test's. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { gossipSection, type GossipConfig } from "../../config.ts";
import type { TransportCertificates } from "../quic/tls-config.ts";
import { createTestCertificates, openEndpoint } from "../quic/transport-fixture.ts";
import { createCertificateAuthority } from "./certificates.ts";
import { CertificateWatch, warningPeriodMs } from "./certificate-watch.ts";
import { transportCertificates } from "./transport-certificates.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-watch-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const NOW_MS = Date.now();
const DAY_MS = 86_400_000;
const first = await createCertificateAuthority({ nowMs: NOW_MS });
const second = await createCertificateAuthority({ nowMs: NOW_MS, commonName: "Second" });

test("a cluster goes over to another authority without a connection dropped", async () => {
  const [left, right] = [await open("left"), await open("right")];
  await using a = await openEndpoint({ certificates: left.certificates });
  await using b = await openEndpoint({ certificates: right.certificates });
  const watches = [
    left.watch((certificates) => a.transport.reloadCertificates(certificates)),
    right.watch((certificates) => b.transport.reloadCertificates(certificates)),
  ];
  const send = (text: string): Promise<boolean> =>
    a.transport.sendUni(b.transport.local, [Buffer.from(text)]);
  expect(await send("before")).toBe(true);
  const both = `${first.certificatePem}${second.certificatePem}`;
  // Everybody trusts both, then shows what the second signed, then trusts the second alone.
  for (const step of ["trust", "show on one side", "show on both", "forget"]) {
    for (const [at, side] of [left, right].entries()) {
      if (step === "show on one side" && at === 0) continue;
      const signed = await createTestCertificates({ authority: second });
      if (step.startsWith("show")) side.write({ ...signed, authoritiesPem: both });
      else side.writeAuthorities(step === "trust" ? both : second.certificatePem);
      await watches[at]?.look();
    }
    a.transport.forget(b.transport.local, "test");
    expect(await send(step)).toBe(true);
  }
  await b.events.until(() => b.events.unis.length === 5);
});

test("what is connected stays connected, and half a renewal is not taken", async () => {
  const side = await open("half");
  await using a = await openEndpoint({ certificates: side.certificates });
  await using b = await openEndpoint({ certificates: side.certificates });
  const taken: TransportCertificates[] = [];
  const watch = side.watch((certificates) => {
    a.transport.reloadCertificates(certificates);
    taken.push(certificates);
  });
  const target = b.transport.local;
  expect(await a.transport.sendUni(target, [Buffer.from("one")])).toBe(true);
  const renewed = await createTestCertificates({ authority: first });
  side.writeFile("server.pem", renewed.server.certificatePem);
  await watch.look();
  await watch.look();
  expect(taken).toEqual([]);
  expect(side.events()).toEqual(["gossip-certificates-refused"]);
  side.writeFile("server.key", renewed.server.keyPem);
  await watch.look();
  expect(taken).toHaveLength(1);
  expect(await a.transport.sendUni(target, [Buffer.from("two")])).toBe(true);
  expect(a.events.edges.map(({ state }) => state)).toEqual(["up"]);
});

test("an expiry is told from thirty days before, ever more often, and then as an error", async () => {
  const left = [31, 30, 8, 7, 2, 1, 0, -5].map((days) => warningPeriodMs(days * DAY_MS));
  const [day, quarter, hour] = [DAY_MS, DAY_MS / 4, DAY_MS / 24];
  expect(left).toEqual([null, day, day, quarter, quarter, hour, hour, hour]);
  const side = await open("expiring", 29.5);
  const watch = side.watch(() => undefined);
  expect(watch.view).toMatchObject({ daysLeft: 29, isExpired: false });
  await watch.look();
  await watch.look();
  expect(side.events()).toEqual(["certificate-expires"]);
  side.clock.ms += 30 * DAY_MS;
  await watch.look();
  expect(side.events()).toEqual(["certificate-expires", "certificate-expired"]);
  expect(watch.view).toMatchObject({ isExpired: true });
  const renewed = await createTestCertificates({ authority: first, nowMs: side.clock.ms });
  side.write(renewed);
  await watch.look();
  expect(watch.view).toMatchObject({ isExpired: false });
  expect(side.rejoins()).toBe(1);
});

interface Side {
  readonly certificates: TransportCertificates;
  readonly clock: { ms: number };
  readonly events: () => string[];
  /** How often the cluster was to be joined anew. */
  readonly rejoins: () => number;
  readonly watch: (reload: (certificates: TransportCertificates) => void) => CertificateWatch;
  readonly write: (certificates: TransportCertificates) => void;
  readonly writeAuthorities: (pem: string) => void;
  readonly writeFile: (name: string, text: string) => void;
}

/** Files of one replica, signed by the first authority. */
async function open(name: string, validityDays = 365): Promise<Side> {
  const path = (file: string): string => join(folder, `${name}-${file}`);
  const writeFile = (file: string, text: string): void => writeFileSync(path(file), text);
  const write = ({ server, client, authoritiesPem }: TransportCertificates): void => {
    writeFile("server.pem", server.certificatePem);
    writeFile("server.key", server.keyPem);
    writeFile("client.pem", client?.certificatePem ?? "");
    writeFile("client.key", client?.keyPem ?? "");
    writeFile("ca.pem", authoritiesPem ?? "");
  };
  write(await createTestCertificates({ authority: first, validityDays }));
  const gossip: GossipConfig = gossipSection.parse({
    addr: "127.0.0.1:0",
    tls: {
      cert_file: path("server.pem"),
      key_file: path("server.key"),
      ca_file: path("ca.pem"),
      client: { cert_file: path("client.pem"), key_file: path("client.key") },
    },
  });
  const certificates = await transportCertificates(gossip, NOW_MS);
  const lines: string[] = [];
  const log = createLogger({ level: "info", nowMs: () => 0, write: (line) => lines.push(line) });
  const clock = { ms: NOW_MS };
  let rejoins = 0;
  const rejoin = (): void => void (rejoins += 1);
  const watched = (event: string): boolean => event !== "gossip-certificates-reloaded";
  return {
    certificates,
    clock,
    events: () =>
      lines.map((line) => (JSON.parse(line) as { event: string }).event).filter(watched),
    rejoins: () => rejoins,
    watch: (reload) =>
      new CertificateWatch({ gossip, log, reload, rejoin, nowMs: () => clock.ms }, certificates),
    write,
    writeAuthorities: (pem) => writeFile("ca.pem", pem),
    writeFile,
  };
}
