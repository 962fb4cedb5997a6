-- A row is: a split that the vendor listed after bars from before it were stored: "applied" to them once, or
--   "unconfirmed" because their prices do not show it. seen_ratio is what the prices show, close before to open after.
-- Written by: update_database.py, in the transaction that changes the bars.
-- Made again: applied ones never, since the bars have changed; that is why they are kept.

CREATE TABLE IF NOT EXISTS _splits (
    ticker TEXT NOT NULL,
    execution_date TEXT NOT NULL,
    split_from REAL NOT NULL,
    split_to REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('applied', 'unconfirmed')),
    seen_ratio REAL,
    day_bars INTEGER NOT NULL DEFAULT 0,
    minute_bars INTEGER NOT NULL DEFAULT 0,
    recorded_at_utc TEXT NOT NULL,
    PRIMARY KEY (ticker, execution_date, split_from, split_to)
) WITHOUT ROWID;
