-- A row is: a trade that an agent made, on paper or at the broker.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS executed_trades (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES trading_agents (id) ON DELETE CASCADE,
    recommendation_id TEXT REFERENCES trade_recommendations (id) ON DELETE SET NULL,
    ticker TEXT NOT NULL,
    side TEXT NOT NULL,
    entry_time DATETIME,
    entry_price REAL,
    position_size INTEGER,
    entry_order_id TEXT,
    exit_time DATETIME,
    exit_price REAL,
    exit_order_id TEXT,
    pnl REAL,
    pnl_percent REAL,
    stop_loss REAL,
    take_profit REAL,
    trailing_stop REAL,
    exit_reason TEXT,
    status TEXT DEFAULT 'OPEN',
    pattern_type TEXT,
    confidence_score INTEGER,
    notes TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_executed_trades_entry_time ON executed_trades (entry_time DESC);
CREATE INDEX IF NOT EXISTS idx_executed_trades_status ON executed_trades (status);
CREATE INDEX IF NOT EXISTS idx_executed_trades_ticker ON executed_trades (ticker, entry_time);
CREATE INDEX IF NOT EXISTS idx_executed_trades_agent ON executed_trades (agent_id, status);
