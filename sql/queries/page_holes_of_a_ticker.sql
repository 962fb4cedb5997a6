-- Holes: sessions on which one ticker has a daily bar and another has none
-- Example: ticker=MSFT&other=AAPL
-- make status ARGS=--holes tells which of them can be fetched.
SELECT other.timestamp AS session_timestamp, other.ticker AS has_a_bar, :ticker AS has_none
FROM ohlcv_data AS other
LEFT JOIN ohlcv_data AS mine
    ON mine.ticker = :ticker AND mine.timeframe = '1day' AND mine.timestamp = other.timestamp
WHERE other.ticker = :other AND other.timeframe = '1day' AND mine.id IS NULL
ORDER BY other.timestamp DESC
LIMIT 1000
