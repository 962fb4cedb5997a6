-- A row is: a ticker's pivot points of one date.
-- Written by: the platform.
-- Made again: computed again from bars.

CREATE TABLE IF NOT EXISTS pivot_points_cache (
    ticker TEXT NOT NULL,
    date TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    pivot REAL NOT NULL,
    r1 REAL,
    r2 REAL,
    r3 REAL,
    s1 REAL,
    s2 REAL,
    s3 REAL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (ticker, date, timeframe)
);

CREATE INDEX IF NOT EXISTS idx_pivot_cache_ticker_date ON pivot_points_cache (ticker, date);
