/** What the log says of membership. */
import type { Logger } from "#base/logger.ts";
import type { SwimEvent } from "../core/swim/events.ts";

/** One line per event. */
export function logSwimEvent(event: SwimEvent, log: Logger): void {
  switch (event.kind) {
    case "memberUp":
      return log.info?.("member-up", `${event.actor.addr} is up`, { peer: event.actor.id });
    case "memberDown":
      return log.warn?.("member-down", `${event.actor.addr} is down`, { peer: event.actor.id });
    case "renamed": {
      const { addr, id } = event.after;
      return log.info?.("member-renewed", `${addr} has a newer identity`, { peer: id });
    }
    case "memberSuspect": {
      const { addr, id } = event.actor;
      return log.info?.("member-suspect", `${addr} is suspected`, { peer: id });
    }
    case "identityConflict": {
      const { addr, id } = event.other;
      const msg = `${addr} uses our actor id; give one of the two a database of its own`;
      return log.error("identity-conflict", msg, { peer: id });
    }
    case "memberAlive":
    case "identityRenewed":
    case "refuted":
    case "connected":
    case "disconnected":
    case "left":
      return log.info?.(`swim-${event.kind.toLowerCase()}`, event.kind);
  }
}
