-- A row is: one earnings report of a company, expected or published.
-- Written by: the platform.
-- Made again: past reports from its data source, while that still lists them.

CREATE TABLE IF NOT EXISTS earnings_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ticker TEXT NOT NULL,
    fiscal_period TEXT,
    fiscal_year TEXT,
    report_date TEXT NOT NULL,
    report_timestamp INTEGER,
    time_of_day TEXT,
    eps_estimate REAL,
    eps_actual REAL,
    revenue_estimate REAL,
    revenue_actual REAL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (ticker, report_date, fiscal_period)
);

CREATE INDEX IF NOT EXISTS idx_earnings_timestamp ON earnings_events (ticker, report_timestamp);
CREATE INDEX IF NOT EXISTS idx_earnings_ticker_date ON earnings_events (ticker, report_date);
