-- A row is: the rebuild that made this file: its plan, and how far it came
--   (building, complete, or holes when part of the data could not be fetched).
-- Written by: restore_database.py.
-- Made again: by the next rebuild.

CREATE TABLE IF NOT EXISTS _rebuild (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    plan TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at_utc TEXT NOT NULL
);
