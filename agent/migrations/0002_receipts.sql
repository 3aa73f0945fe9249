-- The receipts of operations that have ended, the newest ones: the number of a format and CBOR.
CREATE TABLE receipts (
    seq INTEGER PRIMARY KEY,
    operation TEXT NOT NULL,
    finished_at INTEGER NOT NULL,
    signed BLOB NOT NULL
) STRICT;
CREATE INDEX receipts_of_an_operation ON receipts (operation);
