-- Ports of machines that take traffic. Replaced as a whole with their machine.
CREATE TABLE services (
  machine_id TEXT NOT NULL,
  name TEXT NOT NULL,
  node_id TEXT NOT NULL DEFAULT '',
  -- "host:port", IPv6 in brackets.
  address TEXT NOT NULL DEFAULT '',
  -- http | https | ...
  protocol TEXT NOT NULL DEFAULT '',
  -- Requests in flight: above soft a machine is a second choice, at hard it is full; 0 = no limit.
  soft_limit INTEGER NOT NULL DEFAULT 0,
  hard_limit INTEGER NOT NULL DEFAULT 0,
  updated_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (machine_id, name)
);
