-- Bars of some tickers and one timeframe, for the lake. ?1: the tickers as a JSON list, ?2: the
-- timeframe. The casts: databases of the platform's older scripts hold whole numbers where a price
-- belongs.
SELECT
    bars.ticker AS ticker,
    bars.timestamp AS timestamp_ms,
    CAST(bars.open AS REAL) AS open,
    CAST(bars.high AS REAL) AS high,
    CAST(bars.low AS REAL) AS low,
    CAST(bars.close AS REAL) AS close,
    CAST(bars.volume AS INTEGER) AS volume
FROM json_each(?1) AS chosen
CROSS JOIN ohlcv_data AS bars ON bars.ticker = chosen.value
WHERE bars.timeframe = ?2
ORDER BY chosen.key, bars.timestamp
