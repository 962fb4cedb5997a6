-- A row is: one round of an agent's learning, with its scripts and results.
-- Written by: the platform.
-- Made again: learning does not repeat itself: only a backup has it.

CREATE TABLE IF NOT EXISTS agent_iterations (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES trading_agents (id) ON DELETE CASCADE,
    iteration_number INTEGER NOT NULL,
    scan_script TEXT NOT NULL,
    execution_script TEXT NOT NULL,
    version_notes TEXT,
    signals_found INTEGER,
    backtest_results TEXT,
    win_rate REAL,
    sharpe_ratio REAL,
    total_return REAL,
    expert_analysis TEXT,
    refinements_suggested TEXT,
    iteration_status TEXT DEFAULT 'completed',
    created_at TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS idx_agent_iterations_status ON agent_iterations (iteration_status);
CREATE INDEX IF NOT EXISTS idx_agent_iterations_agent ON agent_iterations (agent_id, iteration_number);
