-- A row is: a price level of a ticker that the platform found.
-- Written by: the platform.
-- Made again: computed again from bars, with other ids and dates.

CREATE TABLE IF NOT EXISTS support_resistance_levels (
    id TEXT PRIMARY KEY,
    ticker TEXT NOT NULL,
    level_type TEXT NOT NULL,
    price REAL NOT NULL,
    strength INTEGER,
    first_touch_date TEXT,
    last_touch_date TEXT,
    touch_count INTEGER DEFAULT 1,
    calculation_method TEXT,
    timeframe TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS idx_sr_levels_strength ON support_resistance_levels (strength DESC);
CREATE INDEX IF NOT EXISTS idx_sr_levels_price ON support_resistance_levels (ticker, price);
CREATE INDEX IF NOT EXISTS idx_sr_levels_ticker ON support_resistance_levels (ticker, level_type);
