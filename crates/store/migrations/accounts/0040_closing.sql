-- When players who were inside must be out.
ALTER TABLE closed_worlds ADD COLUMN ends_ms BIGINT NOT NULL DEFAULT 0;

-- Few accounts are staff, and while a world is closed they are looked up again and again.
CREATE INDEX accounts_staff ON accounts (id) WHERE staff = 1;
