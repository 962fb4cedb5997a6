-- A row is: a universe's asked sessions of one timeframe, counted as sessions of tickers:
--   expected = stored + known_empty + set_aside + beyond_plan + failed.
-- Written by: the backfills and the update, at their end. It is stale once something was asked after counted_at_utc.
-- Made again: by counting again.

CREATE TABLE IF NOT EXISTS _coverage (
    universe TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    start_date TEXT NOT NULL,
    end_date TEXT NOT NULL,
    tickers INTEGER NOT NULL,
    expected INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    known_empty INTEGER NOT NULL,
    set_aside INTEGER NOT NULL,
    beyond_plan INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    counted_at_utc TEXT NOT NULL,
    PRIMARY KEY (universe, timeframe)
) WITHOUT ROWID;
