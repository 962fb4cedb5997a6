-- A row is: the result of one strategy on one sample of a batch run.
-- Written by: the platform.
-- Made again: running it again gives a new row, not this one.

CREATE TABLE IF NOT EXISTS batch_backtest_results (
    id TEXT PRIMARY KEY,
    batch_run_id TEXT NOT NULL REFERENCES batch_backtest_runs (id) ON DELETE CASCADE,
    strategy_recommendation_id TEXT NOT NULL REFERENCES strategy_recommendations (id) ON DELETE CASCADE,
    sample_id TEXT NOT NULL REFERENCES scan_results (id) ON DELETE CASCADE,
    ticker TEXT NOT NULL,
    status TEXT DEFAULT 'PENDING',
    total_trades INTEGER DEFAULT 0,
    winning_trades INTEGER DEFAULT 0,
    losing_trades INTEGER DEFAULT 0,
    total_pnl REAL DEFAULT 0,
    total_pnl_percent REAL DEFAULT 0,
    max_drawdown_percent REAL,
    trades_json TEXT,
    metrics_json TEXT,
    execution_time_ms INTEGER,
    error_message TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    completed_at DATETIME,
    UNIQUE (batch_run_id, strategy_recommendation_id, sample_id)
);

CREATE INDEX IF NOT EXISTS idx_batch_results_status ON batch_backtest_results (status);
CREATE INDEX IF NOT EXISTS idx_batch_results_sample ON batch_backtest_results (sample_id);
CREATE INDEX IF NOT EXISTS idx_batch_results_strategy ON batch_backtest_results (strategy_recommendation_id);
CREATE INDEX IF NOT EXISTS idx_batch_results_run ON batch_backtest_results (batch_run_id);
