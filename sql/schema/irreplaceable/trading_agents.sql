-- A row is: a trading agent: its instructions, risk limits and state of learning.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS trading_agents (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    account_id TEXT,
    timeframe TEXT NOT NULL,
    strategies TEXT,
    risk_limits TEXT,
    instructions TEXT,
    system_prompt TEXT,
    risk_tolerance TEXT,
    trading_style TEXT,
    pattern_focus TEXT,
    market_conditions TEXT,
    risk_config TEXT,
    status TEXT DEFAULT 'learning',
    active BOOLEAN DEFAULT 1,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (account_id)
);

CREATE INDEX IF NOT EXISTS idx_agents_active ON trading_agents (active);
