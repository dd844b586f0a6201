-- The identity of each schema's store: a random id that the first start creates, and that stays with copied tables.
-- Several schemas may share one database, so another one may have created the table.
-- `probed_ms`: when a daemon last wrote only to find out whether it can.
CREATE TABLE IF NOT EXISTS store_marks (
    schema_name TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    probed_ms BIGINT NOT NULL DEFAULT 0
);
