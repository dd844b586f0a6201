-- The latest cause of a raised generation, in the account's row, so that one statement writes both. `revoked_code` is
-- an error code of the client protocol; `revoked_detail` goes to sessions of lower generations.
ALTER TABLE accounts ADD COLUMN revoked_code BIGINT NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN revoked_detail TEXT NOT NULL DEFAULT '';
-- 0: never.
ALTER TABLE accounts ADD COLUMN revoked_ms BIGINT NOT NULL DEFAULT 0;
-- The process that has told its followers already; 0: none.
ALTER TABLE accounts ADD COLUMN revoked_by BIGINT NOT NULL DEFAULT 0;

UPDATE accounts SET
    revoked_code = COALESCE((SELECT code FROM revocations WHERE account = accounts.id), 0),
    revoked_detail = COALESCE((SELECT detail FROM revocations WHERE account = accounts.id), ''),
    revoked_ms = COALESCE((SELECT at_ms FROM revocations WHERE account = accounts.id), 0);
DROP TABLE revocations;
CREATE INDEX accounts_revoked ON accounts (revoked_ms);
