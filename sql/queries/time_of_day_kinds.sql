-- The 5-minute rows by what is wrong with their time_of_day; temp.right_times holds what each
-- should say. A time can be right in two ways (in winter UTC-5 is New York): the first kind that
-- fits counts.

SELECT
    CASE
        WHEN bars.time_of_day = right_times.time_of_day AND bars.day_of_week = right_times.day_of_week THEN 'right'
        WHEN bars.time_of_day = right_times.time_of_day AND bars.day_of_week IS NULL THEN 'no weekday'
        WHEN bars.time_of_day = right_times.time_of_day AND bars.day_of_week = (right_times.day_of_week + 6) % 7
            THEN 'weekday from Monday = 0'
        WHEN bars.time_of_day = right_times.time_of_day THEN 'wrong weekday'
        WHEN bars.time_of_day IS NULL OR bars.time_of_day = '' THEN 'no time'
        WHEN bars.time_of_day = substr(right_times.time_of_day, 1, 5) THEN 'New York, without seconds'
        WHEN bars.time_of_day IN (right_times.utc, substr(right_times.utc, 1, 5)) THEN 'UTC'
        WHEN bars.time_of_day IN (right_times.minus_4, substr(right_times.minus_4, 1, 5)) THEN 'UTC-4 all year'
        WHEN bars.time_of_day IN (right_times.minus_5, substr(right_times.minus_5, 1, 5)) THEN 'UTC-5 all year'
        WHEN bars.time_of_day GLOB '[0-2][0-9]:[0-5][05]' OR bars.time_of_day GLOB '[0-2][0-9]:[0-5][05]:00'
            THEN 'another time zone'
        ELSE 'no time of day'
    END AS kind,
    count(*) AS rows
FROM ohlcv_data AS bars
JOIN temp.right_times ON right_times.timestamp = bars.timestamp
WHERE bars.timeframe = '5min'
GROUP BY kind;
