-- 1: the account may enter worlds that are closed to players.
ALTER TABLE accounts ADD COLUMN staff BIGINT NOT NULL DEFAULT 0;

-- The latest revocation of each account, and the message to sessions below that generation. It includes all earlier
-- ones.
CREATE TABLE revocations (
    account BIGINT PRIMARY KEY,
    below_generation BIGINT NOT NULL,
    -- An error code of the client protocol.
    code BIGINT NOT NULL,
    detail TEXT NOT NULL,
    at_ms BIGINT NOT NULL
);
CREATE INDEX revocations_by_time ON revocations (at_ms);

-- Connections to login that keep others from logging in to their account. A lease ends unless it is renewed; one that
-- ends later than `ttl_ms` from now was granted before the clock was set back, and counts as ended.
CREATE TABLE login_leases (
    account BIGINT PRIMARY KEY,
    generation BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    ttl_ms BIGINT NOT NULL
);

CREATE TABLE second_factors (
    account BIGINT PRIMARY KEY,
    -- Encrypted where login has a key for that.
    secret BYTEA NOT NULL,
    -- 0: begun; the first right code confirms it.
    confirmed BIGINT NOT NULL,
    -- Time step of the last used code. It and earlier ones cannot be used again.
    last_step BIGINT NOT NULL,
    -- When the token bucket for wrong codes is full again.
    full_at_ms BIGINT NOT NULL
);

-- Worlds that operators have closed to players.
CREATE TABLE closed_worlds (
    world BIGINT PRIMARY KEY,
    note TEXT NOT NULL,
    since_ms BIGINT NOT NULL
);

-- Invitations to register an account, by the hash of their token.
CREATE TABLE invitations (
    hash BYTEA PRIMARY KEY,
    uses_left BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    created_ms BIGINT NOT NULL
);
