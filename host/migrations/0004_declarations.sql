-- What a version's entry declares of its parameters, as TOML, where its text has no header block. Erased with the text.

ALTER TABLE script_versions ADD COLUMN declaration TEXT;

DROP TRIGGER script_versions_are_only_erased;
CREATE TRIGGER script_versions_are_only_erased
BEFORE UPDATE OF script, declared, declaration, redacted, redacted_by ON script_versions
WHEN NEW.script IS NOT NULL OR NEW.declared IS NOT NULL OR NEW.declaration IS NOT NULL OR NEW.redacted IS NULL
     OR OLD.redacted IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'the text of a script can only be erased'); END;
