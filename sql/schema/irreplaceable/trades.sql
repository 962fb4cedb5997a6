-- A row is: one simulated trade of a backtest.
-- Written by: the platform.
-- Made again: running the backtest again gives new rows, not these.

CREATE TABLE IF NOT EXISTS trades (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    backtest_id INTEGER NOT NULL REFERENCES backtests (id) ON DELETE CASCADE,
    ticker TEXT NOT NULL,
    side TEXT NOT NULL,
    entry_timestamp INTEGER NOT NULL,
    entry_price REAL NOT NULL,
    exit_timestamp INTEGER,
    exit_price REAL,
    quantity REAL NOT NULL,
    commission REAL NOT NULL DEFAULT 0,
    pnl REAL,
    pnl_percent REAL,
    exit_reason TEXT,
    bars INTEGER
);

CREATE INDEX IF NOT EXISTS idx_trades_backtest ON trades (backtest_id);
