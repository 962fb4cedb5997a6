-- A row is: an audit of the whole database that came to its end, with how many errors and warnings
-- it found.
-- Written by: audit_database.py; the newest hundred are kept.
-- Made again: by the next audit.

CREATE TABLE IF NOT EXISTS _audits (
    ended_at_utc TEXT PRIMARY KEY,
    errors INTEGER NOT NULL,
    warnings INTEGER NOT NULL
) WITHOUT ROWID;
