-- A row is: a chart that went into an analysis.
-- Written by: the platform.
-- Made again: it is drawn once: only a backup has it.

CREATE TABLE IF NOT EXISTS analysis_charts (
    id TEXT PRIMARY KEY,
    analysis_id TEXT NOT NULL REFERENCES claude_analyses (id) ON DELETE CASCADE,
    sample_id TEXT NOT NULL REFERENCES scan_results (id) ON DELETE CASCADE,
    chart_type TEXT NOT NULL,
    ticker TEXT NOT NULL,
    start_date TEXT NOT NULL,
    end_date TEXT NOT NULL,
    chart_data TEXT NOT NULL,
    width INTEGER,
    height INTEGER,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_analysis_charts_sample ON analysis_charts (sample_id);
CREATE INDEX IF NOT EXISTS idx_analysis_charts_analysis ON analysis_charts (analysis_id);
