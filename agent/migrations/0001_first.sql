-- What an agent keeps. Blobs are the number of a format and CBOR; `passed` is what is known when an operation starts.
CREATE TABLE operations (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'started', 'finished', 'acknowledged')),
    message BLOB,
    passed BLOB,
    report BLOB,
    accepted_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER
) STRICT;
CREATE INDEX open_operations ON operations (accepted_at) WHERE state <> 'acknowledged';
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    event TEXT NOT NULL,
    operation TEXT,
    details TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE TABLE memory (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
