-- What stalled each edge lately, so that others wait with it. A node writes its own row and no other.
CREATE TABLE edge_stalls (
  node_id TEXT NOT NULL PRIMARY KEY,
  -- Signed names of changes, as JSON (proxy/stall-notice.ts); empty = none.
  notices TEXT NOT NULL DEFAULT '',
  -- Last time a stall or crash ended the edge process, in Unix milliseconds; 0 = never.
  bounced_at INTEGER NOT NULL DEFAULT 0,
  -- Unix milliseconds; moves only together with another column.
  updated_at INTEGER NOT NULL DEFAULT 0
);
