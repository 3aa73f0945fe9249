-- The script library. A version never changes; its text, and what was read from it, can be erased.

CREATE TABLE scripts (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    -- From then on nothing of it is started or added.
    archived        INTEGER,
    archived_by     TEXT,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE script_versions (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    description     TEXT    NOT NULL,
    script_sha256   TEXT    NOT NULL,
    size            INTEGER NOT NULL,
    interpreter     TEXT,
    os              TEXT    NOT NULL,
    run_as          TEXT,
    time_limit      INTEGER,
    output_limit    INTEGER,
    memory_limit    INTEGER,
    environment     TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    -- What the header declares; none once the text is erased.
    declared        TEXT,
    redacted        INTEGER,
    redacted_by     TEXT,
    -- Last, so that a look at the rest does not walk through it. None once it is erased.
    script          BLOB,
    PRIMARY KEY (tenant, name, version),
    FOREIGN KEY (tenant, name) REFERENCES scripts (tenant, name)
) STRICT;
CREATE INDEX script_versions_sha256 ON script_versions (tenant, script_sha256);

CREATE TRIGGER script_versions_are_not_altered
BEFORE UPDATE OF tenant, name, version, description, script_sha256, size, interpreter, os, run_as, time_limit,
                 output_limit, memory_limit, environment, created, created_by ON script_versions
BEGIN SELECT RAISE(ABORT, 'a version of a script never changes'); END;
CREATE TRIGGER script_versions_are_only_erased
BEFORE UPDATE OF script, declared, redacted, redacted_by ON script_versions
WHEN NEW.script IS NOT NULL OR NEW.declared IS NOT NULL OR NEW.redacted IS NULL OR OLD.redacted IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'the text of a script can only be erased'); END;
CREATE TRIGGER script_versions_are_not_deleted BEFORE DELETE ON script_versions
BEGIN SELECT RAISE(ABORT, 'a version of a script never changes'); END;

-- The script that a job runs, where it is one of the library. The text is then not in the job's submission, but here alone.
ALTER TABLE jobs ADD COLUMN script_name TEXT;
ALTER TABLE jobs ADD COLUMN script_version INTEGER;
CREATE INDEX jobs_script ON jobs (tenant, script_name, script_version) WHERE script_name IS NOT NULL;
