-- A row is: an agent's risk figures of one day.
-- Written by: the platform.
-- Made again: it cannot be in full: only a backup has it.

CREATE TABLE IF NOT EXISTS risk_metrics (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES trading_agents (id) ON DELETE CASCADE,
    metric_date DATE NOT NULL,
    total_exposure REAL,
    max_position_size REAL,
    avg_position_size REAL,
    daily_pnl REAL,
    daily_pnl_percent REAL,
    cumulative_pnl REAL,
    max_drawdown REAL,
    current_drawdown REAL,
    sharpe_ratio REAL,
    sortino_ratio REAL,
    total_trades INTEGER DEFAULT 0,
    winning_trades INTEGER DEFAULT 0,
    losing_trades INTEGER DEFAULT 0,
    win_rate REAL,
    avg_win REAL,
    avg_loss REAL,
    largest_win REAL,
    largest_loss REAL,
    profit_factor REAL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (agent_id, metric_date)
);

CREATE INDEX IF NOT EXISTS idx_risk_metrics_agent_date ON risk_metrics (agent_id, metric_date DESC);
