-- Coverage: what was asked for of each universe, in sessions of tickers
-- expected = stored + known_empty + set_aside + beyond_plan + failed
SELECT
    universe, timeframe, start_date, end_date, tickers,
    expected, stored, known_empty, set_aside, beyond_plan, failed, counted_at_utc
FROM _coverage
ORDER BY universe, timeframe
