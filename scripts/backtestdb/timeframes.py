"""The timeframes of stored bars, as `ohlcv_data.timeframe` says them, and what users read."""

LABELS = {"1day": "daily bars", "5min": "5-minute bars"}
TIMEFRAMES = tuple(LABELS)
