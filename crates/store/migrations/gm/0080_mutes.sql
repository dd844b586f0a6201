-- Characters that operators have muted. `gm` sends these rows to each chat daemon that starts.
CREATE TABLE mutes (
    name_key  TEXT PRIMARY KEY,  -- the character's name as shardkeep_names::fold returns it
    until_ms  BIGINT NOT NULL,   -- 0: unmuted
    issued_ms BIGINT NOT NULL    -- the latest command for a name counts
);
