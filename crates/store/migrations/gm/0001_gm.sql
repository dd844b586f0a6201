-- Operators of the console, their sessions and links, and the audit of their commands.
CREATE TABLE operators (
    name       TEXT PRIMARY KEY,
    role       TEXT NOT NULL,   -- viewer, moderator, game-master, admin
    password   TEXT,            -- argon2id, PHC form; NULL: signs in by a one-time link only
    created_ms BIGINT NOT NULL
);

CREATE TABLE operator_sessions (
    token_hash  BYTEA PRIMARY KEY, -- SHA-256 of what the browser or program holds
    operator    TEXT NOT NULL,
    csrf        TEXT NOT NULL,
    by_link     BIGINT NOT NULL,   -- 1: must set a password before anything else
    created_ms  BIGINT NOT NULL,
    seen_ms     BIGINT NOT NULL
);
CREATE INDEX operator_sessions_operator ON operator_sessions (operator);

CREATE TABLE operator_links (
    token_hash BYTEA PRIMARY KEY,
    operator   TEXT NOT NULL,
    expires_ms BIGINT NOT NULL
);

CREATE TABLE audit_numbers (
    one  BIGINT PRIMARY KEY,
    next BIGINT NOT NULL
);
INSERT INTO audit_numbers (one, next) VALUES (1, 1);

CREATE TABLE audit (
    id       BIGINT PRIMARY KEY,
    at_ms    BIGINT NOT NULL,
    operator TEXT NOT NULL,
    origin   TEXT NOT NULL,   -- web or grpc, and the address
    command  TEXT NOT NULL,
    reason   TEXT NOT NULL,
    outcome  TEXT NOT NULL,   -- begun, done, denied, failed
    result   TEXT NOT NULL
);
CREATE INDEX audit_operator ON audit (operator, id);
