-- Where pieces of output are counted in their stream from its beginning on: `start` of one may be behind the end of the
-- one before, and what is between them is lost.

-- Operations that wrote more than their limit: the pieces behind the head, which make room for newer ones.
CREATE TABLE output_tails (
    operation       TEXT    NOT NULL PRIMARY KEY REFERENCES operations (id),
    -- Where the tail of each stream begins; what is between it and the head is gone.
    stdout          INTEGER NOT NULL,
    stderr          INTEGER NOT NULL,
    -- How many bytes the tails of both have.
    bytes           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
