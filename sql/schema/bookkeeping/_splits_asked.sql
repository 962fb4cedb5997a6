-- A row is: the last time that the vendor was asked for new splits.
-- Written by: update_database.py, after all splits of that answer were dealt with.
-- Made again: by the next update.

CREATE TABLE IF NOT EXISTS _splits_asked (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    asked_at_utc TEXT NOT NULL
);
