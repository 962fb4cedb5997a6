-- A row is: a `make update` of every universe up to the newest session, that ended without a
-- failure.
-- Written by: update_database.py, with the time of its start; the newest hundred are kept.
-- Made again: by the next update.

CREATE TABLE IF NOT EXISTS _updates (
    started_at_utc TEXT PRIMARY KEY,
    through_session TEXT NOT NULL
) WITHOUT ROWID;
