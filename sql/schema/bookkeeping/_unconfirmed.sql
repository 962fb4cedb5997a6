-- A row is: sessions of a ticker for which one answer had no bar, without a second sign that there
-- is none: a later bar of the ticker, or the same answer to another run. Stored bars of them stay
-- until then.
-- Written by: the backfills, in the transaction that stores the answer's bars; of tickers that the
-- newest session of a first fill lacks, in the one that ends the metrics.
-- Made again: by asking again.

CREATE TABLE IF NOT EXISTS _unconfirmed (
    ticker TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    start_date TEXT NOT NULL,
    end_date TEXT NOT NULL,
    run TEXT NOT NULL,
    asked_at_utc TEXT NOT NULL,
    PRIMARY KEY (ticker, timeframe, start_date)
) WITHOUT ROWID;
