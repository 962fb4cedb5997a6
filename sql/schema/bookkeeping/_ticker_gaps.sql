-- A row is: a time of months of which the vendor says that a ticker did not trade, between bars:
-- another company may have had it before, so its metrics begin anew with first_after.
-- Written by: the backfills, with the metrics of that ticker.
-- Made again: from the day bars of ohlcv_data. The key's columns come first: SQLite 3.40's
-- integrity_check misreads a WITHOUT ROWID table where they do not.

CREATE TABLE IF NOT EXISTS _ticker_gaps (
    ticker TEXT NOT NULL,
    first_after TEXT NOT NULL,
    last_before TEXT NOT NULL,
    PRIMARY KEY (ticker, first_after)
) WITHOUT ROWID;
