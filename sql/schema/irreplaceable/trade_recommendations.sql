-- A row is: a trade that an agent proposed on a signal.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS trade_recommendations (
    id TEXT PRIMARY KEY,
    signal_id TEXT REFERENCES live_signals (id) ON DELETE CASCADE,
    agent_id TEXT NOT NULL REFERENCES trading_agents (id) ON DELETE CASCADE,
    ticker TEXT NOT NULL,
    side TEXT NOT NULL,
    entry_price REAL,
    position_size INTEGER,
    stop_loss REAL,
    take_profit REAL,
    confidence_score INTEGER,
    reasoning TEXT,
    chart_data TEXT,
    risk_checks TEXT,
    status TEXT DEFAULT 'PENDING',
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_trade_recommendations_created ON trade_recommendations (created_at DESC);
CREATE INDEX IF NOT EXISTS idx_trade_recommendations_agent ON trade_recommendations (agent_id, status);
CREATE INDEX IF NOT EXISTS idx_trade_recommendations_status ON trade_recommendations (status);
