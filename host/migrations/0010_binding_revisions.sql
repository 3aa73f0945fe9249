-- A binding is changed in place: what it says now stands in its row, and all that it ever said in its revisions.

ALTER TABLE bindings ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
-- Within a stage the lower one comes first.
ALTER TABLE bindings ADD COLUMN position INTEGER NOT NULL DEFAULT 100;
-- The languages of the scripts that it is asked about, as a JSON list of words; all where empty.
ALTER TABLE bindings ADD COLUMN languages TEXT NOT NULL DEFAULT '[]';
-- Limits that are lower than what the plugin asks for, as a JSON object.
ALTER TABLE bindings ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';

-- They outlive their binding: below the minimum version of what was once put to use nobody goes back.
CREATE TABLE binding_revisions (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    binding         TEXT    NOT NULL,
    revision        INTEGER NOT NULL,
    component       TEXT    NOT NULL,
    plugin          TEXT    NOT NULL,
    settings        TEXT    NOT NULL,
    mode            TEXT    NOT NULL,
    tags            TEXT    NOT NULL,
    languages       TEXT    NOT NULL,
    limits          TEXT    NOT NULL,
    position        INTEGER NOT NULL,
    -- active, replaced, failed or ended
    state           TEXT    NOT NULL,
    -- Why it failed.
    reason          TEXT,
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    PRIMARY KEY (tenant, binding, revision),
    FOREIGN KEY (tenant, component) REFERENCES plugins (tenant, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX binding_revisions_taken ON binding_revisions (tenant, plugin, mode, state, component);

INSERT INTO binding_revisions
SELECT tenant, id, revision, component, plugin, settings, mode, tags, languages, limits, position, 'active', NULL, created, created_by
FROM bindings;
