/**
 * What two replicas say to each other on a sync stream, as structured values.
 *
 * One bidirectional stream per session, opened by the client, the side that wants data:
 *
 *     client                        server
 *     start, clock          ->
 *                           <-      rejection, or: state, clock
 *     request*              ->
 *     FIN                   ->
 *                           <-      changesets*
 *                           <-      FIN
 *
 * Each value is one frame on the wire (protocol reference, sections 4.1 and 4.2; codec:
 * `wire/sync-messages.ts`), but for `changesets`, which is one frame per changeset. Compressed
 * answers are decompressed before they come here.
 */
import type { SyncAnswer, SyncControl, SyncStart } from "../wire/types.ts";

/** One thing said in a sync session. */
export type SessionMessage =
  /** First of the client. */
  | ({ readonly kind: "start" } & SyncStart)
  | SyncControl
  /** Answers; `changesets` as a server's output one frame each, in this order. */
  | SyncAnswer;
