-- A row is: one strategy's summary over a batch run.
-- Written by: the platform.
-- Made again: running it again gives a new row, not this one.

CREATE TABLE IF NOT EXISTS batch_strategy_performance (
    id TEXT PRIMARY KEY,
    batch_run_id TEXT NOT NULL REFERENCES batch_backtest_runs (id) ON DELETE CASCADE,
    strategy_recommendation_id TEXT NOT NULL REFERENCES strategy_recommendations (id) ON DELETE CASCADE,
    strategy_name TEXT NOT NULL,
    total_tests INTEGER DEFAULT 0,
    successful_tests INTEGER DEFAULT 0,
    failed_tests INTEGER DEFAULT 0,
    winning_trades INTEGER DEFAULT 0,
    losing_trades INTEGER DEFAULT 0,
    win_rate REAL,
    total_pnl REAL DEFAULT 0,
    avg_pnl_per_trade REAL,
    avg_pnl_percent_per_trade REAL,
    median_pnl_percent REAL,
    best_pnl_percent REAL,
    worst_pnl_percent REAL,
    avg_drawdown_percent REAL,
    max_drawdown_percent REAL,
    best_sample_id TEXT,
    best_sample_pnl_percent REAL,
    worst_sample_id TEXT,
    worst_sample_pnl_percent REAL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (batch_run_id, strategy_recommendation_id)
);

CREATE INDEX IF NOT EXISTS idx_strategy_performance_win_rate ON batch_strategy_performance (win_rate);
CREATE INDEX IF NOT EXISTS idx_strategy_performance_run ON batch_strategy_performance (batch_run_id);
