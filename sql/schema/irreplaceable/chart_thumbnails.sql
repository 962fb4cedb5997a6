-- A row is: the small chart of one sample, as the user saw it.
-- Written by: the platform.
-- Made again: it is drawn once from data that may have been adjusted since: only a backup has
--   it.

CREATE TABLE IF NOT EXISTS chart_thumbnails (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ticker TEXT NOT NULL,
    start_date TEXT NOT NULL,
    end_date TEXT NOT NULL,
    signal_date TEXT,
    chart_data TEXT NOT NULL,
    width INTEGER DEFAULT 300,
    height INTEGER DEFAULT 150,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (ticker, start_date, end_date, signal_date)
);

CREATE INDEX IF NOT EXISTS idx_chart_thumbnails_date_range ON chart_thumbnails (start_date, end_date);
CREATE INDEX IF NOT EXISTS idx_chart_thumbnails_ticker ON chart_thumbnails (ticker);
