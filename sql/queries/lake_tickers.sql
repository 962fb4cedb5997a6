-- Every ticker with a bar, by steps from one to the next in the index: 8,000 look-ups, not 10
-- million rows.
WITH RECURSIVE found (ticker) AS (
    SELECT min(ticker) FROM ohlcv_data
    UNION ALL
    SELECT (SELECT min(ticker) FROM ohlcv_data WHERE ticker > found.ticker) FROM found WHERE found.ticker IS NOT NULL
)
SELECT ticker FROM found WHERE ticker IS NOT NULL
