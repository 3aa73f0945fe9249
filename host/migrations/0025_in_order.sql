-- What starts one after the other on each machine, in the order in which it was accepted.

-- As the job was submitted.
ALTER TABLE jobs ADD COLUMN in_order INTEGER NOT NULL DEFAULT 0;

-- As its job says. The order is that of the rows, which are made in the transaction that accepts a job: ids are made before
-- gates are asked, which may take longer for one job than for the next.
ALTER TABLE operations ADD COLUMN in_order INTEGER NOT NULL DEFAULT 0;
CREATE INDEX operations_in_order ON operations (machine, state) WHERE ended = 0 AND in_order = 1;

-- Machines on which something that is in order has ended or waits again, and something else may be next. Who delivers that
-- takes the machine out.
CREATE TABLE turns (
    machine         TEXT    NOT NULL PRIMARY KEY REFERENCES machines (id),
    tenant          TEXT    NOT NULL REFERENCES tenants (id)
) STRICT, WITHOUT ROWID;
