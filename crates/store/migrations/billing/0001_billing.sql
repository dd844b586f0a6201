-- The clocks of sessions. A session that moves to another gateway may start another clock there. `charged_ms` is the
-- part that was charged to a prepaid plan.
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

-- Moves of time between ledger accounts: "sold", "a:<account>" and "played:<account>". One entry per credit, and one
-- per clock, which grows with the clock.
CREATE TABLE time_ledger (
    key TEXT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    amount_ms BIGINT NOT NULL CHECK (amount_ms >= 0)
);
