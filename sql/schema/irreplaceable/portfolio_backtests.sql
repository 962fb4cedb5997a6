-- A row is: one test of a strategy over every match of a scan.
-- Written by: the platform.
-- Made again: running it again gives a new row, not this one.

CREATE TABLE IF NOT EXISTS portfolio_backtests (
    id TEXT PRIMARY KEY,
    scan_query TEXT NOT NULL,
    strategy_prompt TEXT NOT NULL,
    universe TEXT NOT NULL,
    total_matches INTEGER,
    tested_count INTEGER,
    skipped_count INTEGER,
    scan_time_ms INTEGER,
    total_stocks_tested INTEGER,
    total_trades INTEGER,
    successful_backtests INTEGER,
    failed_backtests INTEGER,
    winning_trades INTEGER,
    losing_trades INTEGER,
    win_rate REAL,
    total_pnl REAL,
    total_pnl_percent REAL,
    avg_pnl_per_trade REAL,
    avg_pnl_percent_per_trade REAL,
    median_pnl_percent REAL,
    best_trade TEXT,
    worst_trade TEXT,
    best_stock TEXT,
    worst_stock TEXT,
    individual_results TEXT,
    execution_time_ms INTEGER,
    status TEXT DEFAULT 'COMPLETED',
    error TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_portfolio_backtests_win_rate ON portfolio_backtests (win_rate);
CREATE INDEX IF NOT EXISTS idx_portfolio_backtests_created ON portfolio_backtests (created_at);
CREATE INDEX IF NOT EXISTS idx_portfolio_backtests_universe ON portfolio_backtests (universe);
