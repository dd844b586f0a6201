-- Version of the centre's account of which this account is a copy; 0: no centre has it.
ALTER TABLE accounts ADD COLUMN central_version BIGINT NOT NULL DEFAULT 0;
-- The centre's ban, which applies besides the region's.
ALTER TABLE accounts ADD COLUMN everywhere_until_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN everywhere_reason TEXT NOT NULL DEFAULT '';

-- Version at which the centre's second factor changed; 0: begun in this region and not confirmed yet.
ALTER TABLE second_factors ADD COLUMN central_version BIGINT NOT NULL DEFAULT 0;

-- At most one row: the region of this store, and the version up to which it has the centre's changes.
CREATE TABLE central_region (
    one BIGINT PRIMARY KEY,
    region TEXT NOT NULL,
    version BIGINT NOT NULL
);
