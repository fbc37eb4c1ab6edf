/**
 * Runs in a worker thread, or as a process of its own, for `quic-transport.e2e.test.ts`: an open
 * SQLite database beside a transport that answers each datagram with a row of it.
 */
import { parentPort, workerData } from "node:worker_threads";
import Database from "better-sqlite3";
import { QuicTransport } from "./quic-transport.ts";
import { createTestCertificates } from "./transport-fixture.ts";
import type { TransportCertificates } from "./tls-config.ts";

const database = new Database(":memory:");
database.exec("create table t (v text); insert into t values ('a row')");
const row = database.prepare<[], { v: string }>("select v from t");

if (parentPort === null) await exchangeAndClose();
else await serve(workerData as { certificates: TransportCertificates; peer: string });

async function serve(setup: { certificates: TransportCertificates; peer: string }): Promise<void> {
  const transport = await QuicTransport.open(
    { local: "127.0.0.1:0", certificates: setup.certificates },
    {
      datagram: () => {
        const answer = Buffer.from(row.get()?.v ?? "");
        void transport.sendUni(setup.peer, [answer]);
      },
      uniFrames: () => {},
      biStream: () => {},
      rtt: () => {},
      connection: () => {},
    },
  );
  parentPort?.postMessage(transport.local);
  parentPort?.once("message", () => {
    void transport.close().then(() => database.close());
  });
}

/** Uses everything once; the process ends by itself only if nothing is left running. */
async function exchangeAndClose(): Promise<void> {
  const certificates = await createTestCertificates();
  let arrived = (): void => {};
  const arrival = new Promise<void>((resolve) => (arrived = resolve));
  const events = {
    datagram: () => arrived(),
    uniFrames: () => {},
    biStream: () => {},
    rtt: () => {},
    connection: () => {},
  };
  const options = { local: "127.0.0.1:0", certificates, faults: { delayMs: () => 5 } };
  const left = await QuicTransport.open(options, events);
  const right = await QuicTransport.open(options, events);
  await left.openBi(right.local);
  left.sendDatagram(right.local, Buffer.from("hello"));
  await arrival;
  await left.close();
  await right.close();
  database.close();
}
