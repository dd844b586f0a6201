-- What tells this store from every other: an id for each schema, drawn at the first start and copied with the tables.
-- Several schemas may share one database, so another may have made the table.
CREATE TABLE IF NOT EXISTS store_marks (
    schema_name TEXT PRIMARY KEY,
    id TEXT NOT NULL
);
