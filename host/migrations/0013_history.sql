-- What the host knows of each machine's history, and whether it is suspected to be there twice.
ALTER TABLE machines DROP COLUMN ledger_head;
-- The last entry of its ledger of which the host has stored something that followed from it: the number and the hash.
ALTER TABLE machines ADD COLUMN ledger_seq INTEGER;
ALTER TABLE machines ADD COLUMN ledger_hash TEXT;
-- Whatever it has open then is given up when it connects next: an operator released it from quarantine.
ALTER TABLE machines ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0;
-- When its history was last found to lack what the host has.
ALTER TABLE machines ADD COLUMN history_lost INTEGER;
-- Which computer it is: JSON.
ALTER TABLE machines ADD COLUMN hardware TEXT NOT NULL DEFAULT '{"system":null,"board":null}';
-- Since when nothing is done for it, and why.
ALTER TABLE machines ADD COLUMN quarantined INTEGER;
ALTER TABLE machines ADD COLUMN quarantine_reason TEXT;

-- Another one where this database was restored from a backup: `sluice-host restored`.
CREATE TABLE host_epoch (
    id              INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch           INTEGER NOT NULL,
    since           INTEGER
) STRICT;
INSERT INTO host_epoch (id, epoch) VALUES (1, random() & 0x7fffffffffffffff);
