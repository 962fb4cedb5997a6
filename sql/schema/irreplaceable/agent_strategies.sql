-- A row is: one version of an agent's strategy scripts.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS agent_strategies (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES trading_agents (id) ON DELETE CASCADE,
    version TEXT NOT NULL,
    scan_script TEXT NOT NULL,
    execution_script TEXT NOT NULL,
    backtest_sharpe REAL,
    backtest_win_rate REAL,
    backtest_total_return REAL,
    is_current_version INTEGER DEFAULT 0,
    parent_version TEXT,
    changes_from_parent TEXT,
    created_at TEXT NOT NULL,
    UNIQUE (agent_id, version)
);

CREATE INDEX IF NOT EXISTS idx_agent_strategies_performance ON agent_strategies (backtest_sharpe DESC);
CREATE INDEX IF NOT EXISTS idx_agent_strategies_current ON agent_strategies (agent_id, is_current_version);
CREATE INDEX IF NOT EXISTS idx_agent_strategies_agent ON agent_strategies (agent_id);
