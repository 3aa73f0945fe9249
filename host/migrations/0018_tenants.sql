-- The provider, its customers, and who of the provider works for whom.

-- One tenant is the provider's own: the one that every host has from the start. Every other is a customer of it.
ALTER TABLE tenants ADD COLUMN provider INTEGER NOT NULL DEFAULT 0;
UPDATE tenants SET provider = 1 WHERE name = 'default';
CREATE UNIQUE INDEX tenants_provider ON tenants (provider) WHERE provider = 1;
-- From then on nothing is done there.
ALTER TABLE tenants ADD COLUMN archived INTEGER;
-- Since when the tenant lets nobody of the provider in; null where grants hold.
ALTER TABLE tenants ADD COLUMN provider_denied INTEGER;

-- What an operator of the provider may do in another tenant.
CREATE TABLE grants (
    id              TEXT    NOT NULL PRIMARY KEY,
    -- In which.
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    -- The provider's.
    operator        TEXT    NOT NULL REFERENCES operators (id),
    -- Names of roles, the shipped ones and the provider's own, as JSON.
    roles           TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    expires         INTEGER,
    revoked         INTEGER
) STRICT;
CREATE INDEX grants_operator ON grants (tenant, operator, created);

-- An entry says what the tenant was called when it was made, and its hash is over that.
DROP TRIGGER audit_is_not_altered;
ALTER TABLE audit ADD COLUMN tenant_name TEXT NOT NULL DEFAULT '';
UPDATE audit SET tenant_name = (SELECT t.name FROM tenants t WHERE t.id = audit.tenant);
CREATE TRIGGER audit_is_not_altered BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
