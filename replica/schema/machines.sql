-- Running instances of apps, written by the worker host that runs them.
CREATE TABLE machines (
  id TEXT NOT NULL PRIMARY KEY,
  app_id TEXT NOT NULL DEFAULT '',
  -- Owner and host: the node whose actor id tells how far away the machine is.
  node_id TEXT NOT NULL DEFAULT '',
  region TEXT NOT NULL DEFAULT '',
  -- created | starting | started | stopping | stopped | ...; only `started` takes traffic.
  state TEXT NOT NULL DEFAULT '',
  updated_at INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX machines_app_id ON machines (app_id);
CREATE INDEX machines_node_id ON machines (node_id);
