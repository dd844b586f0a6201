-- The clock of each stretch of a session: a session that goes on at another gateway may begin another stretch there.
-- `charged_ms` is what of it was taken from a prepaid plan.
CREATE TABLE clocks (
    session BYTEA NOT NULL,
    started_ms BIGINT NOT NULL,
    account BIGINT NOT NULL,
    world BIGINT NOT NULL,
    played_ms BIGINT NOT NULL,
    charged_ms BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    seen_ms BIGINT NOT NULL,
    PRIMARY KEY (session, started_ms)
);
CREATE INDEX clocks_of_account ON clocks (account, ended);

-- Prepaid accounts; an account without a row is on the free plan. `warned_ms` is the lowest warning given since the
-- last credit.
CREATE TABLE plans (
    account BIGINT PRIMARY KEY,
    left_ms BIGINT NOT NULL CHECK (left_ms >= 0),
    warned_ms BIGINT,
    -- When the account became prepaid.
    since_ms BIGINT NOT NULL
);
CREATE INDEX plans_running_out ON plans (left_ms);
CREATE INDEX plans_by_age ON plans (since_ms, account);

-- Time moves between ledger accounts: "sold", "a:<account>", "played:<account>". One entry per credit, and one per
-- stretch of a session, which grows with it.
CREATE TABLE time_ledger (
    key TEXT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    amount_ms BIGINT NOT NULL CHECK (amount_ms >= 0)
);
