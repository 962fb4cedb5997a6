-- A row is: a set of tickers whose bars were kept from answers about the whole market; a JSON list
-- in order.
-- Written by: the backfills, once for each set, before the first session that is kept for it.
-- Made again: by asking again.

CREATE TABLE IF NOT EXISTS _ticker_sets (
    id INTEGER PRIMARY KEY,
    tickers TEXT NOT NULL UNIQUE
);
