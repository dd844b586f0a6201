-- Of an account that a centre has: the version of the centre's account that this is the copy of. 0: of this store alone.
ALTER TABLE accounts ADD COLUMN central_version BIGINT NOT NULL DEFAULT 0;
-- The centre's ban, beside the region's own.
ALTER TABLE accounts ADD COLUMN everywhere_until_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN everywhere_reason TEXT NOT NULL DEFAULT '';

-- Of a secret that the centre has: the version with which it changed. 0: the region's, and not in force yet.
ALTER TABLE second_factors ADD COLUMN central_version BIGINT NOT NULL DEFAULT 0;

-- At most one row: the region that this store is of, and up to which version it has seen the centre's changes.
CREATE TABLE central_region (
    one BIGINT PRIMARY KEY,
    region TEXT NOT NULL,
    version BIGINT NOT NULL
);
