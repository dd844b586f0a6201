-- Accounts of several regions. A region's store holds copies of those that are active there.
CREATE TABLE central_accounts (
    id BIGINT PRIMARY KEY,
    -- Normalised before it comes here.
    name TEXT NOT NULL UNIQUE,
    srp_group BIGINT NOT NULL,
    salt BYTEA NOT NULL,
    verifier BYTEA NOT NULL,
    -- As login gives it: enciphered where login has a key for that. Empty: none.
    second_factor BYTEA NOT NULL,
    -- The version with which the second factor changed last; 0: never.
    factor_version BIGINT NOT NULL,
    -- 0: not banned; the highest number: for ever.
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

-- One row. Whoever changes an account takes the next version here and keeps the row until the change is committed:
-- versions become visible in their order, so that a region that has seen one has seen all before it.
CREATE TABLE central_numbers (
    one BIGINT PRIMARY KEY,
    next_account BIGINT NOT NULL,
    version BIGINT NOT NULL
);
INSERT INTO central_numbers (one, next_account, version) VALUES (1, 1, 0);
