-- When players inside must have left.
ALTER TABLE closed_worlds ADD COLUMN ends_ms BIGINT NOT NULL DEFAULT 0;

-- Few accounts are staff, and login reads them repeatedly while a world is closed.
CREATE INDEX accounts_staff ON accounts (id) WHERE staff = 1;
