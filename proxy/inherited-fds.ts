/** The descriptors that the supervisor passes on to an edge process, as it describes them. */
import type { ListenFds } from "./data-plane.ts";

/** Sockets and the pipe that the supervisor passed on; null fields = started without one. */
export interface InheritedFds {
  readonly beat: number | null;
  /** One per data-plane thread. */
  readonly http: readonly number[];
  readonly https: readonly number[];
  /** Second descriptors of the same sockets but the first, by name, for threads that replace. */
  readonly spares: { readonly http?: readonly number[]; readonly https?: readonly number[] };
}

/** Reads `PATINA_FDS`. */
export function inheritedFds(text: string | undefined): InheritedFds {
  const fds = JSON.parse(text ?? "{}") as Partial<InheritedFds>;
  return {
    beat: fds.beat ?? null,
    http: fds.http ?? [],
    https: fds.https ?? [],
    spares: fds.spares ?? {},
  };
}

/**
 * Second descriptors of the sockets of a data-plane thread, counted from the one beside the main
 * thread; null unless there is one for each.
 */
export function spareOf({ spares, https: all }: InheritedFds, index: number): ListenFds | null {
  const http = spares.http?.[index] ?? null;
  const https = spares.https?.[index] ?? null;
  return http === null || (https === null && all.length > 0) ? null : { http, https };
}
