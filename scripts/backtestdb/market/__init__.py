"""How market data comes in: the client, the plan, the bars and their metrics."""
