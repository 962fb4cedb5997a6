-- A row is: one thing that an agent did.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS agent_activity_log (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES trading_agents (id) ON DELETE CASCADE,
    activity_type TEXT NOT NULL,
    ticker TEXT,
    description TEXT NOT NULL,
    data TEXT,
    timestamp DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_agent_activity_type ON agent_activity_log (activity_type, timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_agent_activity_agent_time ON agent_activity_log (agent_id, timestamp DESC);
