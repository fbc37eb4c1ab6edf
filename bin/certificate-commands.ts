/** Commands about the certificates of a cluster; `ca`, `server` and `client` are Corrosion's. */
import type { Command } from "commander";
import { actorId } from "./corrosion-commands.ts";

/** Adds them to the program. */
export function addCertificateCommands(patina: Command): void {
  const tls = patina.command("tls").description("make a cluster's certificates");
  tls
    .command("ca")
    .description("the cluster's authority")
    .command("generate")
    .option("--out <folder>", "folder for ca.pem and ca.key", ".")
    .action(async (options) => (await import("./commands/tls.ts")).generateAuthority(options));
  const server = tls
    .command("server")
    .description("certificate shown when a replica is dialled")
    .command("generate")
    .argument("<ip...>", "IP addresses under which the replica is dialled");
  addLeafFlags(server, "server").action(async (ips: string[], options) =>
    (await import("./commands/tls.ts")).generateServer(ips, options),
  );
  const client = tls
    .command("client")
    .description("certificate shown when a replica dials")
    .command("generate");
  addLeafFlags(client, "client").action(async (options) =>
    (await import("./commands/tls.ts")).generateClient(options),
  );
  addRotation(tls);
}

function addRotation(tls: Command): void {
  const rotate = tls
    .command("rotate")
    .description("another authority for a cluster that runs, step by step");
  const steps = [
    ["begin", "once: make the next authority beside the present one"],
    ["trust", "on each host: take certificates of either authority"],
    ["issue", "on each host: show certificates of the next one"],
    ["forget", "on each host: take certificates of the next one alone"],
    ["end", "once: the next authority is the present one"],
  ] as const;
  for (const [step, text] of steps) {
    const command = rotate
      .command(step)
      .description(text)
      .option("--ca <folder>", "folder of ca.pem, ca.key and the next ones", ".");
    if (step === "issue" || step === "forget") {
      command.option("--force", "though members do not answer, or would be lost");
    }
    command.action(async (_options, self: Command) =>
      (await import("./commands/rotate.ts"))[step](self.optsWithGlobals()),
    );
  }
}

function addLeafFlags(command: Command, stem: string): Command {
  return command
    .option("--ca <folder>", "folder of ca.pem and ca.key", ".")
    .option("--ca-cert <file>", "the authority's certificate, in place of --ca")
    .option("--ca-key <file>", "the authority's key, in place of --ca")
    .option("--actor <id>", "bind it to this actor, as of patina actor init", actorId)
    .option("--out <folder>", `folder for ${stem}.pem and ${stem}.key`, ".");
}
