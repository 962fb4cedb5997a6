-- Every 5-minute row that does not say what temp.right_times says gets it.

UPDATE ohlcv_data
SET time_of_day = right_times.time_of_day, day_of_week = right_times.day_of_week
FROM temp.right_times
WHERE ohlcv_data.timeframe = '5min'
    AND right_times.timestamp = ohlcv_data.timestamp
    AND (
        ohlcv_data.time_of_day IS NOT right_times.time_of_day
        OR ohlcv_data.day_of_week IS NOT right_times.day_of_week
    );
