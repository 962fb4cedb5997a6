-- Agents that learn: what the learning lab of the platform keeps about each agent.

ALTER TABLE trading_agents ADD COLUMN instructions TEXT;
ALTER TABLE trading_agents ADD COLUMN system_prompt TEXT;
ALTER TABLE trading_agents ADD COLUMN risk_tolerance TEXT;
ALTER TABLE trading_agents ADD COLUMN trading_style TEXT;
ALTER TABLE trading_agents ADD COLUMN pattern_focus TEXT;
ALTER TABLE trading_agents ADD COLUMN market_conditions TEXT;
ALTER TABLE trading_agents ADD COLUMN risk_config TEXT;
ALTER TABLE trading_agents ADD COLUMN status TEXT DEFAULT 'learning';
