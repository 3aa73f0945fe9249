-- Operators, who act by tokens, and the roles that say what they may do.
CREATE TABLE operators (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    -- Names of roles, the shipped ones and the tenant's own, as JSON.
    roles           TEXT    NOT NULL,
    -- Permissions besides the roles', as JSON: of an operator that was made with its token. Null for others.
    permissions     TEXT,
    -- The token that it was made with and ends with. Null for operators that have tokens as they need them.
    token           TEXT,
    created         INTEGER NOT NULL,
    -- The token that made it; null for a host's first.
    created_by      TEXT,
    removed         INTEGER
) STRICT;
-- The name of one that was removed is free again; whoever takes it is another operator with another id.
CREATE UNIQUE INDEX operators_name ON operators (tenant, name) WHERE removed IS NULL;

CREATE TABLE roles (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    policy          TEXT    NOT NULL,
    -- Grows with every change, so that whoever keeps the policies read knows which they have.
    revision        INTEGER NOT NULL,
    changed         INTEGER NOT NULL,
    changed_by      TEXT    NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

-- Whoever had a token until now is an operator of the same name, with the permissions of the token.
INSERT INTO operators (id, tenant, name, roles, permissions, token, created, created_by, removed)
    SELECT id, tenant, name, '[]', permissions, id, created, created_by, revoked FROM tokens;
ALTER TABLE tokens ADD COLUMN operator TEXT NOT NULL DEFAULT '';
UPDATE tokens SET operator = id;
ALTER TABLE tokens DROP COLUMN permissions;
-- What the token leaves of what its operator may do, as JSON; everything where both are null.
ALTER TABLE tokens ADD COLUMN only_permissions TEXT;
ALTER TABLE tokens ADD COLUMN only_roles TEXT;
CREATE INDEX tokens_operator ON tokens (tenant, operator);

-- What machines get that join with a token, and which may.
ALTER TABLE enroll_tokens ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
UPDATE enroll_tokens SET uses = uses_left;
ALTER TABLE enroll_tokens ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
-- Ranges of addresses, as JSON; any where there is none.
ALTER TABLE enroll_tokens ADD COLUMN addresses TEXT NOT NULL DEFAULT '[]';
ALTER TABLE enroll_tokens ADD COLUMN approval TEXT NOT NULL DEFAULT 'automatic';
ALTER TABLE enroll_tokens ADD COLUMN revoked INTEGER;
CREATE INDEX enroll_tokens_tenant ON enroll_tokens (tenant, created);

-- Since when a machine waits for somebody to approve it; null where it does not.
ALTER TABLE machines ADD COLUMN pending INTEGER;
