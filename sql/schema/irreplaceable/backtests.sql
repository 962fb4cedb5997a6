-- A row is: one run of a strategy over past bars, with its results.
-- Written by: the platform.
-- Made again: running it again gives a new row, not this one.

CREATE TABLE IF NOT EXISTS backtests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    strategy_id INTEGER NOT NULL REFERENCES strategies (id) ON DELETE CASCADE,
    config TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'RUNNING',
    metrics TEXT,
    equity_curve TEXT,
    error TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    completed_at DATETIME
);
