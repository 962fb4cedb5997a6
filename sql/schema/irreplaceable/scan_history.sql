-- A row is: one scan that the user asked for, with what it found.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS scan_history (
    id TEXT PRIMARY KEY,
    user_prompt TEXT NOT NULL,
    universe_id TEXT,
    date_range_start TEXT,
    date_range_end TEXT,
    matches_found INTEGER,
    results_json TEXT,
    execution_time_ms INTEGER,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_scan_history_universe ON scan_history (universe_id);
CREATE INDEX IF NOT EXISTS idx_scan_history_created ON scan_history (created_at);
