-- A row is: one bar of one ticker: a New York session (timeframe 1day) or five minutes of it
--   (5min).
-- Written by: 02_backfill_daily.py, 03_backfill_intraday.py, update_database.py.
-- Made again: from the market data vendor, by the same scripts.

CREATE TABLE IF NOT EXISTS ohlcv_data (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ticker TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    open REAL NOT NULL,
    high REAL NOT NULL,
    low REAL NOT NULL,
    close REAL NOT NULL,
    volume INTEGER NOT NULL,
    timeframe TEXT NOT NULL,
    time_of_day TEXT,
    day_of_week INTEGER,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (ticker, timestamp, timeframe)
);

CREATE INDEX IF NOT EXISTS idx_ohlcv_time_of_day ON ohlcv_data (ticker, timeframe, time_of_day);
CREATE INDEX IF NOT EXISTS idx_ohlcv_ticker_timeframe ON ohlcv_data (ticker, timeframe, timestamp);
