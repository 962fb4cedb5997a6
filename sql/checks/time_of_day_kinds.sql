-- The 5-minute rows by what is wrong with their time_of_day; temp.right_times holds what each should say.
-- A time can be right in two ways (in winter UTC-5 is New York): the first kind that fits counts.

SELECT
    CASE
        WHEN bars.time_of_day = right_times.time_of_day AND bars.day_of_week = right_times.day_of_week THEN 'right'
        WHEN bars.time_of_day = right_times.time_of_day THEN 'wrong weekday'
        WHEN bars.time_of_day IS NULL OR bars.time_of_day = '' THEN 'empty'
        WHEN bars.time_of_day = substr(right_times.time_of_day, 1, 5) THEN 'HH:MM'
        WHEN bars.time_of_day IN (right_times.utc, substr(right_times.utc, 1, 5)) THEN 'UTC'
        WHEN bars.time_of_day IN (right_times.minus_4, substr(right_times.minus_4, 1, 5)) THEN 'fixed -4'
        WHEN bars.time_of_day IN (right_times.minus_5, substr(right_times.minus_5, 1, 5)) THEN 'fixed -5'
        ELSE 'other'
    END AS kind,
    count(*) AS rows
FROM ohlcv_data AS bars
JOIN temp.right_times ON right_times.timestamp = bars.timestamp
WHERE bars.timeframe = '5min'
GROUP BY kind;
