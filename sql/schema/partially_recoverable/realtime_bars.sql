-- A row is: a bar received live, before the vendor corrected it.
-- Written by: the platform's stream.
-- Made again: the corrected bar from the vendor, not what was seen live.

CREATE TABLE IF NOT EXISTS realtime_bars (
    ticker TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    open REAL NOT NULL,
    high REAL NOT NULL,
    low REAL NOT NULL,
    close REAL NOT NULL,
    volume INTEGER NOT NULL,
    timeframe TEXT NOT NULL,
    received_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (ticker, timestamp, timeframe)
);

CREATE INDEX IF NOT EXISTS idx_realtime_bars_timeframe ON realtime_bars (timeframe, timestamp);
CREATE INDEX IF NOT EXISTS idx_realtime_bars_ticker_time ON realtime_bars (ticker, timestamp);
