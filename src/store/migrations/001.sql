-- Small values under keys: counters (last_row, rows, last_order, last_notice, lost_notices), last_wall_ms, and what
-- other rooms keep.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;

-- Telemetry: the samples of one device and boot in one commit interval. first_row is unique because a row belongs to one
-- device. The blob stands last so that the columns before it are read without it.
CREATE TABLE chunks (
    first_row INTEGER PRIMARY KEY,
    last_row  INTEGER NOT NULL,
    device    TEXT NOT NULL,
    boot      TEXT NOT NULL,
    first_ts  INTEGER NOT NULL,
    last_ts   INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    count     INTEGER NOT NULL,
    data      BLOB NOT NULL
) STRICT;
CREATE INDEX chunks_by_time ON chunks (last_ts, device);

CREATE TABLE cursors (uplink TEXT PRIMARY KEY, acked BLOB NOT NULL) WITHOUT ROWID, STRICT;

-- device is '' for the site.
CREATE TABLE commands (
    ord               INTEGER PRIMARY KEY,
    uplink            TEXT NOT NULL,
    device            TEXT NOT NULL,
    id                TEXT NOT NULL,
    body              BLOB NOT NULL,
    reply_topic       TEXT,
    reply_correlation BLOB,
    ends_at           INTEGER NOT NULL,
    accepted_at       INTEGER NOT NULL,
    is_final          INTEGER NOT NULL,
    result            TEXT NOT NULL,
    UNIQUE (uplink, device, id)
) STRICT;
CREATE INDEX commands_open ON commands (ord) WHERE is_final = 0;

CREATE TABLE plans (
    id          TEXT PRIMARY KEY,
    body        TEXT NOT NULL,
    source      TEXT NOT NULL,
    ord         INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE held (
    device TEXT PRIMARY KEY,
    demand TEXT NOT NULL,
    on_end TEXT NOT NULL,
    since  INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE baselines (device TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID, STRICT;

-- An event and its notice share one number.
CREATE TABLE events (
    id       INTEGER PRIMARY KEY,
    ts       INTEGER NOT NULL,
    severity TEXT NOT NULL,
    device   TEXT,
    code     TEXT NOT NULL,
    text     TEXT NOT NULL,
    state    TEXT NOT NULL
) STRICT;

-- kind: result, event (body empty: it stands in events), plan.
CREATE TABLE notices (
    id                INTEGER PRIMARY KEY,
    ts                INTEGER NOT NULL,
    kind              TEXT NOT NULL,
    uplink            TEXT,
    plan              TEXT,
    reply_topic       TEXT,
    reply_correlation BLOB,
    body              TEXT NOT NULL
) STRICT;
CREATE TABLE outbox (
    uplink TEXT NOT NULL,
    notice INTEGER NOT NULL,
    PRIMARY KEY (uplink, notice)
) WITHOUT ROWID, STRICT;
CREATE INDEX outbox_by_notice ON outbox (notice);
