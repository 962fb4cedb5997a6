-- A row is: a named list of tickers, such as tech_sector.
-- Written by: 01_create_universe.py.
-- Made again: by the same script for the lists it knows; lists of the user's own, ids and sectors
-- only from a backup.

CREATE TABLE IF NOT EXISTS universe (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT,
    total_stocks INTEGER DEFAULT 0,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (name)
);
