-- A row is: the market's regime on one date.
-- Written by: the platform.
-- Made again: computed again from index bars.

CREATE TABLE IF NOT EXISTS market_regime (
    date TEXT PRIMARY KEY,
    vix_close REAL,
    spy_close REAL,
    spy_change_percent REAL,
    regime TEXT,
    volatility_percentile REAL,
    created_at TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS idx_market_regime_date ON market_regime (date DESC);
