-- One day of log records. All columns are text, so that any tool can read the file.
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS log (
    id         INTEGER PRIMARY KEY,
    time       TEXT NOT NULL, -- UTC, YYYY-MM-DDTHH:MM:SS.ffffffZ
    daemon     TEXT NOT NULL, -- kind: login, zone …
    instance   TEXT NOT NULL, -- name: zone-1
    level      TEXT NOT NULL, -- TRACE, DEBUG, INFO, WARN, ERROR
    target     TEXT NOT NULL, -- module, or `event` for player events
    message    TEXT NOT NULL,
    event      TEXT,          -- player events: login, enter, trade …
    account    TEXT,
    character  TEXT,
    session    TEXT,
    attributes TEXT NOT NULL  -- JSON object of everything else
) STRICT;
CREATE INDEX IF NOT EXISTS log_time ON log (time);
CREATE INDEX IF NOT EXISTS log_event ON log (event, time) WHERE event IS NOT NULL;
CREATE INDEX IF NOT EXISTS log_account ON log (account, time) WHERE account IS NOT NULL;
CREATE INDEX IF NOT EXISTS log_character ON log (character, time) WHERE character IS NOT NULL;
CREATE INDEX IF NOT EXISTS log_session ON log (session, time) WHERE session IS NOT NULL;
CREATE VIRTUAL TABLE IF NOT EXISTS log_text USING fts5(message, attributes, content = 'log', content_rowid = 'id');
CREATE TRIGGER IF NOT EXISTS log_text_insert AFTER INSERT ON log BEGIN
    INSERT INTO log_text (rowid, message, attributes) VALUES (new.id, new.message, new.attributes);
END;
CREATE TRIGGER IF NOT EXISTS log_text_delete AFTER DELETE ON log BEGIN
    INSERT INTO log_text (log_text, rowid, message, attributes)
    VALUES ('delete', old.id, old.message, old.attributes);
END;
COMMIT;
