-- A row is: one ticker's membership in a universe; is_active = 0 once it has left.
-- Written by: 01_create_universe.py.
-- Made again: by the same script for the lists it knows; lists of the user's own, ids and sectors
-- only from a backup.

CREATE TABLE IF NOT EXISTS universe_stocks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    universe_id INTEGER NOT NULL REFERENCES universe (id) ON DELETE CASCADE,
    ticker TEXT NOT NULL,
    name TEXT,
    sector TEXT,
    industry TEXT,
    market_cap REAL,
    is_active INTEGER DEFAULT 1,
    added_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (universe_id, ticker)
);

CREATE INDEX IF NOT EXISTS idx_universe_stocks_universe ON universe_stocks (universe_id);
CREATE INDEX IF NOT EXISTS idx_universe_stocks_ticker ON universe_stocks (ticker);
