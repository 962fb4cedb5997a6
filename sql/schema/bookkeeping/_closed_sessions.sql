-- A row is: a session of the calendar on which nothing traded: nobody has a bar of it, while a
-- later one has.
-- Written by: the backfills, at their end.
-- Made again: by asking again.

CREATE TABLE IF NOT EXISTS _closed_sessions (
    session_date TEXT PRIMARY KEY,
    found_at_utc TEXT NOT NULL
) WITHOUT ROWID;
