-- A row is: one sample that a scan found and a collection keeps.
-- Written by: the platform.
-- Made again: a new scan may choose otherwise: only a backup has it.

CREATE TABLE IF NOT EXISTS scan_results (
    id TEXT PRIMARY KEY,
    backtest_set_id TEXT NOT NULL REFERENCES backtest_sets (id) ON DELETE CASCADE,
    ticker TEXT NOT NULL,
    start_date TEXT NOT NULL,
    end_date TEXT NOT NULL,
    peak_date TEXT,
    total_change_percent REAL,
    peak_change_percent REAL,
    volume_spike_ratio REAL,
    pattern_duration_days INTEGER,
    notes TEXT,
    tags TEXT,
    daily_bars TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_scan_results_date_range ON scan_results (start_date, end_date);
CREATE INDEX IF NOT EXISTS idx_scan_results_ticker ON scan_results (ticker);
CREATE INDEX IF NOT EXISTS idx_scan_results_backtest_set ON scan_results (backtest_set_id);
