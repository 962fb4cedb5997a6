-- A row is: a universe's asked sessions of one timeframe, counted as sessions of tickers: expected
-- = stored + known_empty + set_aside + beyond_plan + failed. ranges: the asked ranges as JSON,
-- [[first, last], …], oldest first; empty means start_date to end_date. provisional: sessions of
-- tickers whose answer waits for a second one, or came before the session was final. state: running
-- until the run that asks has counted, then counted.
-- Written by: the backfills and the update, at their beginning and at their end.
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
    ranges TEXT NOT NULL DEFAULT '',
    provisional INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'counted',
    PRIMARY KEY (universe, timeframe)
) WITHOUT ROWID;
