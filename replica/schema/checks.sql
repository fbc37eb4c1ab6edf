-- Health checks of services as the worker sees them. Replaced as a whole with their machine.
CREATE TABLE checks (
  machine_id TEXT NOT NULL,
  service TEXT NOT NULL,
  name TEXT NOT NULL,
  node_id TEXT NOT NULL DEFAULT '',
  -- passing | warning | critical
  status TEXT NOT NULL DEFAULT '',
  updated_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (machine_id, service, name)
);
