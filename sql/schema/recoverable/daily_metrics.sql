-- A row is: one ticker's session with the 27 values of the daily metrics.
-- Written by: 02_backfill_daily.py, update_database.py.
-- Made again: computed from the day bars of ohlcv_data.

CREATE TABLE IF NOT EXISTS daily_metrics (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ticker TEXT NOT NULL,
    date TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    open REAL NOT NULL,
    high REAL NOT NULL,
    low REAL NOT NULL,
    close REAL NOT NULL,
    volume INTEGER NOT NULL,
    change_percent REAL,
    change_from_open REAL,
    volume_ratio REAL,
    volume_20d_avg REAL,
    high_low_range_percent REAL,
    close_to_high_percent REAL,
    close_to_low_percent REAL,
    sma_20 REAL,
    sma_50 REAL,
    sma_200 REAL,
    price_to_sma20_percent REAL,
    price_to_sma50_percent REAL,
    price_to_sma200_percent REAL,
    rsi_14 REAL,
    consecutive_up_days INTEGER,
    consecutive_down_days INTEGER,
    change_5d_percent REAL,
    change_10d_percent REAL,
    change_20d_percent REAL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (ticker, date)
);

CREATE INDEX IF NOT EXISTS idx_daily_metrics_change ON daily_metrics (ticker, change_percent);
CREATE INDEX IF NOT EXISTS idx_daily_metrics_volume_ratio ON daily_metrics (ticker, volume_ratio);
CREATE INDEX IF NOT EXISTS idx_daily_metrics_date ON daily_metrics (date);
CREATE INDEX IF NOT EXISTS idx_daily_metrics_ticker_date ON daily_metrics (ticker, date);
