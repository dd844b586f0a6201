-- The highest session epoch of the reports of a clock. A gateway that has lost the session without noticing reports a
-- lower one.
ALTER TABLE clocks ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
