-- A row is: one run of many strategies over many samples.
-- Written by: the platform.
-- Made again: running it again gives a new row, not this one.

CREATE TABLE IF NOT EXISTS batch_backtest_runs (
    id TEXT PRIMARY KEY,
    analysis_id TEXT NOT NULL REFERENCES claude_analyses (id) ON DELETE CASCADE,
    backtest_set_id TEXT NOT NULL REFERENCES backtest_sets (id) ON DELETE CASCADE,
    status TEXT DEFAULT 'PENDING',
    total_strategies INTEGER DEFAULT 0,
    total_samples INTEGER DEFAULT 0,
    total_tests INTEGER DEFAULT 0,
    completed_tests INTEGER DEFAULT 0,
    failed_tests INTEGER DEFAULT 0,
    error_message TEXT,
    execution_time_ms INTEGER,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    completed_at DATETIME
);

CREATE INDEX IF NOT EXISTS idx_batch_runs_status ON batch_backtest_runs (status);
CREATE INDEX IF NOT EXISTS idx_batch_runs_analysis ON batch_backtest_runs (analysis_id);
