-- What machines signed of their receipts, which are in the report. `late` says in which: 0 the one that counts, 1 the one that
-- came after the host had given the operation up, 2 in none yet (they came ahead of it).
CREATE TABLE receipts (
    operation       TEXT    NOT NULL PRIMARY KEY REFERENCES operations (id),
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    machine         TEXT    NOT NULL REFERENCES machines (id),
    late            INTEGER NOT NULL,
    signature       BLOB    NOT NULL,
    -- The digest of the certificate that the machine had.
    certificate     TEXT    NOT NULL REFERENCES machine_certificates (sha256),
    -- What the gates were asked beside the submission; none where that was too much, or was lost.
    inputs          BLOB
) STRICT;

-- Certificates (DER) with which something of the above was signed.
CREATE TABLE machine_certificates (
    sha256          TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    machine         TEXT    NOT NULL REFERENCES machines (id),
    certificate     BLOB    NOT NULL
) STRICT;

-- Settings that a plugin was ever bound with, by the digest that receipts have: what is bound no longer can be asked again.
CREATE TABLE bound_settings (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    sha256          TEXT    NOT NULL,
    settings        TEXT    NOT NULL,
    PRIMARY KEY (tenant, sha256)
) STRICT, WITHOUT ROWID;
