-- What raised the generation last, in the account's own row: raising it and writing down why are one statement.
-- An error code of the client protocol, and what those of a lower generation are told.
ALTER TABLE accounts ADD COLUMN revoked_code BIGINT NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN revoked_detail TEXT NOT NULL DEFAULT '';
-- 0: never.
ALTER TABLE accounts ADD COLUMN revoked_ms BIGINT NOT NULL DEFAULT 0;
-- Which process has told its followers already; 0: none has.
ALTER TABLE accounts ADD COLUMN revoked_by BIGINT NOT NULL DEFAULT 0;

UPDATE accounts SET
    revoked_code = COALESCE((SELECT code FROM revocations WHERE account = accounts.id), 0),
    revoked_detail = COALESCE((SELECT detail FROM revocations WHERE account = accounts.id), ''),
    revoked_ms = COALESCE((SELECT at_ms FROM revocations WHERE account = accounts.id), 0);
DROP TABLE revocations;
CREATE INDEX accounts_revoked ON accounts (revoked_ms);
