-- Physical hosts and edges. A node writes its own row and no other: the owner is `id`.
CREATE TABLE nodes (
  id TEXT NOT NULL PRIMARY KEY,
  -- Actor id (hyphenated UUID) of the replica on this node: round-trip times are measured per actor.
  actor_id TEXT NOT NULL DEFAULT '',
  region TEXT NOT NULL DEFAULT '',
  -- worker | edge
  kind TEXT NOT NULL DEFAULT '',
  -- Degrees; NULL = not told.
  latitude REAL,
  longitude REAL,
  -- "host:port" of the replica's gossip socket.
  address TEXT NOT NULL DEFAULT '',
  -- Unix milliseconds; moves only together with another column.
  updated_at INTEGER NOT NULL DEFAULT 0
);
