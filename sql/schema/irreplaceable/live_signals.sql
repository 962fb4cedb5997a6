-- A row is: a pattern that an agent saw in the running market.
-- Written by: the platform.
-- Made again: the moment is gone: only a backup has it.

CREATE TABLE IF NOT EXISTS live_signals (
    id TEXT PRIMARY KEY,
    agent_id TEXT REFERENCES trading_agents (id) ON DELETE CASCADE,
    ticker TEXT NOT NULL,
    pattern_type TEXT NOT NULL,
    detection_time DATETIME NOT NULL,
    signal_data TEXT,
    status TEXT DEFAULT 'DETECTED',
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_live_signals_agent ON live_signals (agent_id, status);
CREATE INDEX IF NOT EXISTS idx_live_signals_ticker ON live_signals (ticker, detection_time);
CREATE INDEX IF NOT EXISTS idx_live_signals_status ON live_signals (status);
