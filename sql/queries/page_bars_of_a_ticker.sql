-- Bars of a ticker, the newest first
-- Example: ticker=AAPL&timeframe=1day
-- timeframe is 1day or 5min.
SELECT timestamp, time_of_day, open, high, low, close, volume
FROM ohlcv_data
WHERE ticker = :ticker AND timeframe = :timeframe
ORDER BY timestamp DESC
LIMIT 1000
