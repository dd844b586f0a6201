-- The highest session epoch with which a gateway has reported the clock: what a gateway says that has lost the session
-- and does not know it yet is told by its lower one.
ALTER TABLE clocks ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
