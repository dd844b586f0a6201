-- The clock of each session: the highest value reported.
CREATE TABLE clocks (
    session BYTEA PRIMARY KEY,
    account BIGINT NOT NULL,
    world BIGINT NOT NULL,
    started_ms BIGINT NOT NULL,
    played_ms BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    seen_ms BIGINT NOT NULL
);
CREATE INDEX clocks_of_account ON clocks (account, ended);
CREATE INDEX clocks_running ON clocks (ended, seen_ms);

-- An account without a row is on the free plan.
CREATE TABLE plans (
    account BIGINT PRIMARY KEY,
    plan TEXT NOT NULL,
    warned_below_ms BIGINT
);

-- Time moves between ledger accounts: "sold", "a:<account>", "played:<account>".
CREATE TABLE time_ledger (
    key TEXT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    amount_ms BIGINT NOT NULL
);
