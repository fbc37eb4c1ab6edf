/** Names what a simulated replica is told, for the trace by which runs are compared. */
import type { ReplicaInput } from "../core/replica-messages.ts";
import type { Changeset } from "../types.ts";

/** What identifies an input in the trace: what it is, and of changes which. */
export function describeInput(input: ReplicaInput): string {
  switch (input.kind) {
    case "packet":
      return input.packet.message.kind;
    case "broadcast":
      return nameOf(input.changeset);
    case "committed":
      return `committed ${input.commit.version}`;
    case "applied":
      return `applied ${input.outcomes.map((outcome) => outcome.kind).join()}`;
    case "syncClient":
    case "syncServer": {
      const what = input.input.kind === "message" ? input.input.message.kind : input.input.kind;
      return `${input.kind} ${what}`;
    }
    default:
      return input.kind;
  }
}

function nameOf(changeset: Changeset): string {
  if (changeset.kind === "empty") return `${changeset.actorId} empty ${changeset.versions.start}`;
  return `${changeset.actorId} ${changeset.version} ${changeset.seqs.start}`;
}
