-- Schedules that run when something happens to a machine.

-- What has to happen; null where the schedule runs by the clock.
ALTER TABLE schedules ADD COLUMN event TEXT;
CREATE INDEX schedules_event ON schedules (tenant, event) WHERE event IS NOT NULL AND removed IS NULL AND paused IS NULL;

CREATE TABLE schedule_events (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    schedule        TEXT    NOT NULL REFERENCES schedules (id),
    machine         TEXT    NOT NULL REFERENCES machines (id),
    -- When it happened: with the machine it is what the run is known by.
    at              INTEGER NOT NULL,
    -- When the run is due, which is later where the machine has had one a moment ago.
    due             INTEGER NOT NULL,
    -- As in schedule_runs.
    state           TEXT    NOT NULL,
    settled         INTEGER NOT NULL,
    job             TEXT,
    reason          TEXT,
    PRIMARY KEY (schedule, machine, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_events_waiting ON schedule_events (due) WHERE state = 'waiting';
CREATE INDEX schedule_events_latest ON schedule_events (schedule, at);
