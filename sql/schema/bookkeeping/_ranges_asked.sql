-- A row is: a range of sessions that the vendor was asked for and answered, for one ticker.
-- first_date and last_date are those of the bars that came, NULL when the answer was empty.
-- Sessions that were not over (20:15 New York) at asked_at_utc count as not asked; run is empty in
-- records of older programs, whose empty ends are not believed. See _unconfirmed.
-- Written by: the backfills, in the transaction that stores the answer's bars.
-- Made again: by asking again.

CREATE TABLE IF NOT EXISTS _ranges_asked (
    ticker TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    start_date TEXT NOT NULL,
    end_date TEXT NOT NULL,
    first_date TEXT,
    last_date TEXT,
    bars INTEGER NOT NULL,
    asked_at_utc TEXT NOT NULL,
    run TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (ticker, timeframe, start_date, end_date)
) WITHOUT ROWID;
