-- A row is: an agent's cash, positions and equity now.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS portfolio_state (
    agent_id TEXT PRIMARY KEY REFERENCES trading_agents (id) ON DELETE CASCADE,
    account_id TEXT NOT NULL,
    cash REAL DEFAULT 0,
    positions TEXT,
    total_equity REAL DEFAULT 0,
    daily_pnl REAL DEFAULT 0,
    daily_pnl_percent REAL DEFAULT 0,
    open_trade_count INTEGER DEFAULT 0,
    total_exposure REAL DEFAULT 0,
    last_updated DATETIME DEFAULT CURRENT_TIMESTAMP
);
