-- A row is: an order sent to the broker, with the broker's answers.
-- Written by: the platform.
-- Made again: it cannot be: only a backup has it.

CREATE TABLE IF NOT EXISTS tradestation_orders (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES trading_agents (id) ON DELETE CASCADE,
    trade_id TEXT REFERENCES executed_trades (id) ON DELETE SET NULL,
    order_id TEXT NOT NULL,
    ticker TEXT NOT NULL,
    side TEXT NOT NULL,
    order_type TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    limit_price REAL,
    stop_price REAL,
    status TEXT NOT NULL,
    filled_quantity INTEGER DEFAULT 0,
    avg_fill_price REAL,
    submitted_at DATETIME NOT NULL,
    filled_at DATETIME,
    response_data TEXT,
    error_message TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_tradestation_orders_trade ON tradestation_orders (trade_id);
CREATE INDEX IF NOT EXISTS idx_tradestation_orders_status ON tradestation_orders (status);
CREATE INDEX IF NOT EXISTS idx_tradestation_orders_agent ON tradestation_orders (agent_id);
