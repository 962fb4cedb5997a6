-- A row is: the first fill that is under way: the key that its staging file has too, and for which
-- tickers it is. A staging file with another key belongs to another state of this database (a
-- restored one), and is removed.
-- Written by: the backfills, before the first session is set aside; deleted in the transaction that
-- ends the loading.
-- Made again: not needed; without it the sessions that were set aside are asked for again.

CREATE TABLE IF NOT EXISTS _first_fill (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    staging_key TEXT NOT NULL,
    ticker_set INTEGER NOT NULL,
    tickers_sha256 TEXT NOT NULL,
    begun_at_utc TEXT NOT NULL
);
