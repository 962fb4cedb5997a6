-- A row is: a strategy that an analysis proposed.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS strategy_recommendations (
    id TEXT PRIMARY KEY,
    analysis_id TEXT NOT NULL REFERENCES claude_analyses (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    side TEXT NOT NULL,
    entry_conditions TEXT NOT NULL,
    exit_conditions TEXT NOT NULL,
    confidence_score REAL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_strategy_recommendations_analysis ON strategy_recommendations (analysis_id);
