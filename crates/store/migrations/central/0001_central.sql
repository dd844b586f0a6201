-- Accounts of several regions. The store of a region holds copies of the accounts that are active there.
CREATE TABLE central_accounts (
    id BIGINT PRIMARY KEY,
    -- Stored normalised.
    name TEXT NOT NULL UNIQUE,
    srp_group BIGINT NOT NULL,
    salt BYTEA NOT NULL,
    verifier BYTEA NOT NULL,
    -- Encrypted where login has a key for that. Empty: none.
    second_factor BYTEA NOT NULL,
    -- Version at which the second factor last changed; 0: never.
    factor_version BIGINT NOT NULL,
    -- 0: not banned; the highest number: permanently.
    banned_until_ms BIGINT NOT NULL,
    ban_reason TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    version BIGINT NOT NULL UNIQUE
);

CREATE TABLE central_activations (
    account BIGINT NOT NULL,
    region TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    PRIMARY KEY (account, region)
);

-- One row. A change of an account takes the next version here and locks the row until its commit. So versions become
-- visible in order, and a region that has seen one has seen all before it.
CREATE TABLE central_numbers (
    one BIGINT PRIMARY KEY,
    next_account BIGINT NOT NULL,
    version BIGINT NOT NULL
);
INSERT INTO central_numbers (one, next_account, version) VALUES (1, 1, 0);
