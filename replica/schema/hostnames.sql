-- Which app a request's host name belongs to. Lower case, without port or trailing dot.
CREATE TABLE hostnames (
  hostname TEXT NOT NULL PRIMARY KEY,
  app_id TEXT NOT NULL DEFAULT '',
  node_id TEXT NOT NULL DEFAULT '',
  updated_at INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX hostnames_app_id ON hostnames (app_id);
