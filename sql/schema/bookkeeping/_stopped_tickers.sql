-- A row is: an active member of a universe without a bar in the newest five sessions that were
-- asked for, with its last bar, and what the vendor's ticker events say of a successor (asked once
-- for each last bar).
-- Written by: the daily backfills and updates, at their end; deleted once the ticker trades again.
-- Made again: by the next run.

CREATE TABLE IF NOT EXISTS _stopped_tickers (
    ticker TEXT PRIMARY KEY,
    last_bar TEXT NOT NULL,
    note TEXT NOT NULL,
    events_asked_at_utc TEXT
) WITHOUT ROWID;
