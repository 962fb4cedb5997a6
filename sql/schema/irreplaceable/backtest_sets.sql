-- A row is: a collection of pattern samples to test strategies on.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS backtest_sets (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT,
    pattern_type TEXT,
    total_samples INTEGER DEFAULT 0,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
