-- Versions of the provider's scripts that its customers may run as they are. Each customer has a copy of its own, under
-- `provider/NAME`; whether it may run is looked up here.
CREATE TABLE offers (
    id              TEXT    NOT NULL PRIMARY KEY,
    -- Of the provider's library.
    script          TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    script_sha256   TEXT    NOT NULL,
    -- To which customer; null for all of them, also those that are made later.
    tenant          TEXT    REFERENCES tenants (id),
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    withdrawn       INTEGER
) STRICT;
CREATE INDEX offers_open ON offers (script, version) WHERE withdrawn IS NULL;
