-- What was made by a grant, or by what was, is good as long as the grant is.

-- The grant; null for what the tenant's own operators made by tokens of their own.
ALTER TABLE tokens ADD COLUMN made_by_grant TEXT REFERENCES grants (id);
ALTER TABLE enroll_tokens ADD COLUMN made_by_grant TEXT REFERENCES grants (id);

WITH RECURSIVE made (id, by_grant) AS (
    SELECT t.id, (SELECT g.id FROM grants g WHERE g.tenant = t.tenant AND g.operator = m.operator AND g.created <= t.created
                  ORDER BY g.created DESC, g.id DESC LIMIT 1)
        FROM tokens t JOIN tokens m ON m.id = t.created_by WHERE m.tenant <> t.tenant
    UNION SELECT t.id, made.by_grant FROM tokens t JOIN made ON t.created_by = made.id
)
UPDATE tokens SET made_by_grant = (SELECT by_grant FROM made WHERE made.id = tokens.id)
    WHERE id IN (SELECT id FROM made);
-- Those that are made by an operator of the provider have its name (`provider/NAME`).
UPDATE enroll_tokens SET made_by_grant = (
    SELECT g.id FROM grants g JOIN operators o ON o.id = g.operator
    WHERE g.tenant = enroll_tokens.tenant AND 'provider/' || o.name = enroll_tokens.created_by
        AND g.created <= enroll_tokens.created
    ORDER BY g.created DESC, g.id DESC LIMIT 1);
