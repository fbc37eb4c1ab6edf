/** Exit codes of errors that end a process, by their stable code. */
import { EXIT, type ExitMeaning } from "../watchdog/supervisor/exit-codes.ts";

/** The exit code for an error's code; anything unknown is a bug of ours (1). */
export function exitCodeOf(code: string): number {
  return EXIT[MEANING_BY_CODE[code] ?? "internal"];
}

const MEANING_BY_CODE: Readonly<Record<string, ExitMeaning>> = {
  USAGE: "config",
  CONFIG_INVALID: "config",
  CONFIG_UNREADABLE: "config",
  SCHEMA_BUDGET: "config",
  API_BIND: "portInUse",
  ADMIN_BIND: "portInUse",
  LISTEN_FAILED: "portInUse",
  TRANSPORT_BIND: "portInUse",
  WATCHDOG_LISTEN: "portInUse",
  STORE_LOCKED: "storeLocked",
  STORE_CORRUPT: "databaseCorrupt",
  STORE_FULL: "diskFull",
  STORE_SCHEMA: "config",
  STORE_IDENTITY: "config",
  STORE_EXTENSION: "setup",
  CERTIFICATE_UNREADABLE: "certificateUnreadable",
  TRANSPORT_TLS: "certificateUnreadable",
  SUPERVISOR_UNREACHABLE: "unreachable",
  API_UNREACHABLE: "unreachable",
  ADMIN_UNREACHABLE: "unreachable",
  EDGE_SILENT: "unreachable",
  API_REFUSED: "refused",
  ADMIN_REFUSED: "refused",
  BACKUP_SOURCE: "copyUnusable",
  BACKUP_TARGET: "copyUnusable",
  CHECKPOINT_NONE: "copyUnusable",
  CHECKPOINT_DAMAGED: "copyUnusable",
  CHECKPOINT_FORMAT: "copyUnusable",
  CHECKPOINT_CLUSTER: "copyUnusable",
  CHECKPOINT_STORE: "copyUnusable",
  CHECKPOINT_DENIED: "copyUnusable",
  DEMO_FAILED: "demoFailed",
  UPGRADE_REFUSED: "upgradeFailed",
  UPGRADE_ROLLED_BACK: "upgradeFailed",
};
