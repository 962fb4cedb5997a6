-- Agents and their iterations, the newest first
SELECT
    agent.name AS agent, agent.status AS agent_status, iteration.iteration_number,
    iteration.created_at, iteration.iteration_status, iteration.signals_found,
    iteration.win_rate, iteration.sharpe_ratio, iteration.total_return, iteration.version_notes
FROM trading_agents AS agent
LEFT JOIN agent_iterations AS iteration ON iteration.agent_id = agent.id
ORDER BY agent.name, iteration.iteration_number DESC
LIMIT 1000
