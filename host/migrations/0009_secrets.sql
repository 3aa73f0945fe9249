-- Secrets. A value is encrypted with the key in `secrets.key` beside this file, bound to tenant, name and version; of a
-- secret that was revoked there is none any more.
CREATE TABLE secrets (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    -- Counted from 1; every value has its own.
    version         INTEGER NOT NULL,
    value           BLOB,
    created         INTEGER NOT NULL,
    -- Of this version.
    changed         INTEGER NOT NULL,
    changed_by      TEXT    NOT NULL,
    revoked         INTEGER,
    PRIMARY KEY (tenant, name),
    CHECK ((value IS NULL) = (revoked IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- What values are sealed to that go to a machine: its public key, as it said last.
CREATE TABLE machine_sealing_keys (
    machine         TEXT    NOT NULL PRIMARY KEY REFERENCES machines (id),
    key             BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- Values for operations that have not ended, each sealed to its machine: the host cannot open them.
CREATE TABLE operation_secrets (
    operation       TEXT    NOT NULL REFERENCES operations (id),
    name            TEXT    NOT NULL,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    sealed          BLOB    NOT NULL,
    PRIMARY KEY (operation, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX operation_secrets_by_name ON operation_secrets (tenant, name);

-- Whoever ends an operation, and however.
CREATE TRIGGER operation_secrets_end_with_the_operation
AFTER UPDATE OF ended ON operations WHEN NEW.ended = 1
BEGIN DELETE FROM operation_secrets WHERE operation = NEW.id; END;
