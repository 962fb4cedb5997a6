"""A database with as many bars as the whole market has: made-up prices, real sizes."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backtestdb.database import connect
from backtestdb.market.sessions import last_completed_session, load_calendar, sessions_between
from backtestdb.new_york import midnight_ms
from backtestdb.schema import ensure_schema

# Bars as an update of today leaves them: status calls older ones stale.
LAST = last_completed_session(load_calendar(), datetime.now(UTC))
BARS = """
INSERT INTO ohlcv_data (ticker, timestamp, open, high, low, close, volume, timeframe, day_of_week)
SELECT t.ticker, s.midnight_ms, 100.25, 101.5 + t.id % 7, 99.125, 100.75,
    1000000 + s.midnight_ms % 977, '1day', 3
FROM universe_stocks t CROSS JOIN temp.sessions s ORDER BY t.id, s.midnight_ms
"""
METRICS = """
INSERT INTO daily_metrics (ticker, date, timestamp, open, high, low, close, volume, change_percent,
    change_from_open, volume_ratio, volume_20d_avg, high_low_range_percent, close_to_high_percent,
    close_to_low_percent, sma_20, sma_50, sma_200, price_to_sma20_percent, price_to_sma50_percent,
    price_to_sma200_percent, rsi_14, consecutive_up_days, consecutive_down_days, change_5d_percent,
    change_10d_percent, change_20d_percent)
SELECT ticker, strftime('%Y-%m-%d', timestamp / 1000, 'unixepoch'), timestamp, open, high, low,
    close, volume,
    0.1 + id % 9, 0.2, 1.1, 1e6 + 0.5, 2.3, 0.7, 1.6, 100.3, 100.4, 100.6, 0.4, 0.3, 0.1, 51.7,
    1, 0, 1.1, 2.1, 3.1
FROM ohlcv_data ORDER BY id
"""
# The newest row of each ticker is what its bars give, for `make status` looks at some of them.
NEWEST = """
UPDATE daily_metrics SET change_percent = iif(:last >= 1, 0, NULL),
    change_from_open = 100 * (close / open - 1),
    high_low_range_percent = 100 * (high - low) / open,
    close_to_high_percent = 100 * (high - close) / high,
    close_to_low_percent = 100 * (close - low) / low, sma_20 = iif(:last >= 19, close, NULL),
    sma_50 = iif(:last >= 49, close, NULL), sma_200 = iif(:last >= 199, close, NULL),
    price_to_sma20_percent = iif(:last >= 19, 0, NULL),
    price_to_sma50_percent = iif(:last >= 49, 0, NULL),
    price_to_sma200_percent = iif(:last >= 199, 0, NULL), rsi_14 = iif(:last >= 13, 100, NULL),
    consecutive_up_days = 0, consecutive_down_days = 0,
    change_5d_percent = iif(:last >= 5, 0, NULL),
    change_10d_percent = iif(:last >= 10, 0, NULL), change_20d_percent = iif(:last >= 20, 0, NULL),
    volume_20d_avg = :volume, volume_ratio = volume / :volume
WHERE date = :date
"""


def make_large_database(path: Path, *, tickers: int, sessions: int, journal: str = "WAL") -> Path:
    """4,000 tickers × 1,170 sessions are 2 GB, up to LAST. All of them belong to the universe
    us-stocks."""
    end = LAST
    days = sessions_between(load_calendar(), end - timedelta(days=sessions * 2), end)[-sessions:]
    with closing(connect(path, create=True)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -262144")
        ensure_schema(connection)
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO universe (id, name, total_stocks) VALUES (1, 'us-stocks', ?)", (tickers,)
        )
        connection.executemany(
            "INSERT INTO universe_stocks (universe_id, ticker) VALUES (1, ?)",
            [(f"T{n:04}",) for n in range(tickers)],
        )
        connection.execute("CREATE TEMP TABLE sessions (midnight_ms INTEGER PRIMARY KEY)")
        connection.executemany(
            "INSERT INTO temp.sessions VALUES (?)", [(midnight_ms(day),) for day in days]
        )
        connection.execute(BARS)
        connection.execute(METRICS)
        before = [1_000_000 + midnight_ms(day) % 977 for day in days[-21:-1]]
        volume = sum(before) / 20 if len(before) == 20 else None
        connection.execute(
            NEWEST, {"last": sessions - 1, "volume": volume, "date": days[-1].isoformat()}
        )
        connection.execute(
            "INSERT INTO _ranges_asked SELECT ticker, '1day', ?, ?, ?, ?, ?, "
            "'2026-11-21T02:00:00+00:00', 'a run' FROM universe_stocks",
            (*(days[0].isoformat(), days[-1].isoformat()) * 2, len(days)),
        )
        connection.execute("COMMIT")
    return path
