-- A row is: a finding of the audit that the user has looked at and accepts: a rule, whose data
-- breaks it (a ticker, a universe, or market), and the session, empty for every session.
-- Written by: audit_database.py --accept.
-- Made again: by looking at the findings again.

CREATE TABLE IF NOT EXISTS _audit_accepted (
    rule TEXT NOT NULL,
    ticker TEXT NOT NULL,
    session_date TEXT NOT NULL DEFAULT '',
    accepted_at_utc TEXT NOT NULL,
    PRIMARY KEY (rule, ticker, session_date)
) WITHOUT ROWID;
