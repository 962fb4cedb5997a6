-- A row is: the generated script that tests a recommended strategy.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it, its file lies in the generated scripts.

CREATE TABLE IF NOT EXISTS strategy_backtest_scripts (
    id TEXT PRIMARY KEY,
    strategy_recommendation_id TEXT NOT NULL REFERENCES strategy_recommendations (id) ON DELETE CASCADE,
    script_path TEXT NOT NULL,
    script_hash TEXT,
    generation_status TEXT DEFAULT 'PENDING',
    error_message TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (strategy_recommendation_id)
);

CREATE INDEX IF NOT EXISTS idx_strategy_scripts_status ON strategy_backtest_scripts (generation_status);
CREATE INDEX IF NOT EXISTS idx_strategy_scripts_recommendation ON strategy_backtest_scripts (strategy_recommendation_id);
