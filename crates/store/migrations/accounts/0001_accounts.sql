-- Names are stored normalised. Each login, ban, new password and "log out everywhere" raises the generation, which
-- ends the sessions of lower ones.
CREATE TABLE accounts (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    srp_group BIGINT NOT NULL,
    salt BYTEA NOT NULL,
    verifier BYTEA NOT NULL,
    generation BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    -- 0: the account has never logged in.
    last_login_ms BIGINT NOT NULL,
    -- 0: not banned; the highest number: permanently.
    banned_until_ms BIGINT NOT NULL,
    ban_reason TEXT NOT NULL
);

-- One row: the id of the next account.
CREATE TABLE account_numbers (
    one BIGINT PRIMARY KEY,
    next BIGINT NOT NULL
);
INSERT INTO account_numbers (one, next) VALUES (1, 1);

-- Secrets that all replicas of login share. The first replica creates them.
CREATE TABLE account_secrets (
    name TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);
