-- A row is: the last time that the vendor's list of splits was read.
-- Written by: the look at the splits, in the transaction that keeps what it changed.
-- Made again: by the next look.

CREATE TABLE IF NOT EXISTS _splits_asked (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    asked_at_utc TEXT NOT NULL
);
