-- What is kept from a version's script at least: `standard` or `strict`; none where the version asks for nothing.

ALTER TABLE script_versions ADD COLUMN confinement TEXT;

DROP TRIGGER script_versions_are_not_altered;
CREATE TRIGGER script_versions_are_not_altered
BEFORE UPDATE OF tenant, name, version, description, script_sha256, size, interpreter, os, run_as, time_limit,
                 output_limit, memory_limit, confinement, environment, created, created_by ON script_versions
BEGIN SELECT RAISE(ABORT, 'a version of a script never changes'); END;
