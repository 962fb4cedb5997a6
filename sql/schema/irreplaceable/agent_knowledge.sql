-- A row is: one insight that an agent learned.
-- Written by: the platform.
-- Made again: learning does not repeat itself: only a backup has it.

CREATE TABLE IF NOT EXISTS agent_knowledge (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES trading_agents (id) ON DELETE CASCADE,
    knowledge_type TEXT NOT NULL,
    pattern_type TEXT,
    insight TEXT NOT NULL,
    supporting_data TEXT,
    confidence REAL,
    learned_from_iteration INTEGER,
    times_validated INTEGER DEFAULT 0,
    last_validated TEXT,
    created_at TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS idx_agent_knowledge_pattern ON agent_knowledge (pattern_type);
CREATE INDEX IF NOT EXISTS idx_agent_knowledge_type ON agent_knowledge (agent_id, knowledge_type);
CREATE INDEX IF NOT EXISTS idx_agent_knowledge_agent ON agent_knowledge (agent_id);
