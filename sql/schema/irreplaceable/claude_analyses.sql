-- A row is: one analysis of chosen samples, with its insights.
-- Written by: the platform.
-- Made again: an assistant never answers twice the same: only a backup has it.

CREATE TABLE IF NOT EXISTS claude_analyses (
    id TEXT PRIMARY KEY,
    backtest_set_id TEXT NOT NULL REFERENCES backtest_sets (id) ON DELETE CASCADE,
    selected_sample_ids TEXT NOT NULL,
    analysis_status TEXT DEFAULT 'PENDING',
    visual_insights TEXT,
    error_message TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    completed_at DATETIME
);

CREATE INDEX IF NOT EXISTS idx_claude_analyses_status ON claude_analyses (analysis_status);
CREATE INDEX IF NOT EXISTS idx_claude_analyses_set ON claude_analyses (backtest_set_id);
