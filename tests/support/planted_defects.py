"""One defect for each rule of the audit, planted into a market without any.

Each planter changes one ticker (or the market) as an accident would, and what belongs to it, so
that nothing else is wrong afterwards: metrics are computed again where bars changed, records follow
rows that are gone.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pandas as pd

from audit_market import BAR_NAMES, MINUTE_MS, save_metric_rows
from backtestdb.market.audit.rule import WHOLE_MARKET
from backtestdb.new_york import midnight_ms


@dataclass(frozen=True)
class Place:
    """Where a defect is planted. `ticker` has day bars of all `sessions`, and 5-minute bars of the
    last ones when the rule needs them; `number` of them."""

    connection: sqlite3.Connection
    ticker: str
    sessions: Sequence[date]
    minute_sessions: int

    @property
    def day(self) -> date:
        """A session in the middle, without 5-minute bars."""
        return self.sessions[len(self.sessions) // 2]

    @property
    def minute_day(self) -> date:
        """A session in the middle of those with 5-minute bars."""
        return self.sessions[-1 - self.minute_sessions // 2]

    def day_bars(self, change: str, day: date, *values: object) -> None:
        """`change`: SET … of the day bar of one session."""
        self.connection.execute(
            f"UPDATE ohlcv_data SET {change} "
            "WHERE ticker = ? AND timeframe = '1day' AND timestamp = ?",
            (*values, self.ticker, midnight_ms(day)),
        )

    def bar(self, day: date) -> dict[str, float]:
        names = ("open", "high", "low", "close", "volume")
        row = self.connection.execute(
            f"SELECT {', '.join(names)} FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' "
            "AND timestamp = ?",
            (self.ticker, midnight_ms(day)),
        ).fetchone()
        return dict(zip(names, row, strict=True))


def compute_metrics(connection: sqlite3.Connection, ticker: str) -> None:
    """From the stored bars, as a backfill does."""
    rows = connection.execute(
        "SELECT ticker, timestamp, open, high, low, close, volume FROM ohlcv_data"
        " WHERE ticker = ? AND timeframe = '1day' ORDER BY timestamp",
        (ticker,),
    ).fetchall()
    bars = pd.DataFrame(
        rows, columns=["ticker", "timestamp", "open", "high", "low", "close", "volume"]
    )
    local = pd.DatetimeIndex(bars["timestamp"].astype("datetime64[ms]"), tz="UTC").tz_convert(
        "America/New_York"
    )
    bars.insert(1, "date", local.strftime("%Y-%m-%d"))
    connection.execute("DELETE FROM daily_metrics WHERE ticker = ?", (ticker,))
    save_metric_rows(connection, bars)


def forget_bars(place: Place, tickers: Sequence[str], timeframe: str = "1day") -> None:
    """Let the records say what is stored."""
    for ticker in tickers:
        place.connection.execute(
            "UPDATE _ranges_asked SET bars = (SELECT count(*) FROM ohlcv_data "
            "WHERE ticker = ?1 AND timeframe = ?2) WHERE ticker = ?1 AND timeframe = ?2",
            (ticker, timeframe),
        )


def plant_impossible_bar(place: Place) -> None:
    place.day_bars("high = low - 0.5", place.day)
    compute_metrics(place.connection, place.ticker)


def plant_price_below_tick(place: Place) -> None:
    place.connection.execute(
        "UPDATE ohlcv_data SET open = open / 1e7, high = high / 1e7, low = low / 1e7, "
        "close = close / 1e7 WHERE ticker = ?",
        (place.ticker,),
    )
    compute_metrics(place.connection, place.ticker)


def plant_move_without_volume(place: Place) -> None:
    place.day_bars("volume = 0", place.day)
    compute_metrics(place.connection, place.ticker)


def plant_no_session(place: Place) -> None:
    """A copy of a Friday's bar on its Saturday."""
    friday = next(day for day in place.sessions if day > place.day and day.weekday() == 4)
    saturday = friday + timedelta(days=1)
    add_bar(place, "1day", midnight_ms(saturday), place.bar(friday), None, 6)
    compute_metrics(place.connection, place.ticker)


def add_bar(
    place: Place,
    timeframe: str,
    stamp: int,
    bar: Mapping[str, float],
    time_of_day: str | None,
    weekday: int,
) -> None:
    values = (place.ticker, stamp, *bar.values(), timeframe, time_of_day, weekday)
    marks = ", ".join("?" * len(BAR_NAMES))
    place.connection.execute(
        f"INSERT INTO ohlcv_data ({', '.join(BAR_NAMES)}) VALUES ({marks})", values
    )


def plant_off_grid(place: Place) -> None:
    """A 5-minute bar two minutes late."""
    (stamp,) = place.connection.execute(
        "SELECT timestamp FROM ohlcv_data WHERE ticker = ? AND timeframe = '5min' AND timestamp > ?"
        " AND time_of_day = '11:00:00' ORDER BY timestamp LIMIT 1",
        (place.ticker, midnight_ms(place.minute_day)),
    ).fetchone()
    place.connection.execute(
        "UPDATE ohlcv_data SET timestamp = timestamp + ?, time_of_day = '11:02:00' WHERE ticker = ?"
        " AND timeframe = '5min' AND timestamp = ?",
        (2 * MINUTE_MS, place.ticker, stamp),
    )


def plant_second_bar(place: Place) -> None:
    """The session's bar once more, with the time that answers about the whole market carry:
    16:00."""
    weekday = (place.day.weekday() + 1) % 7
    add_bar(
        place,
        "1day",
        midnight_ms(place.day) + 16 * 60 * MINUTE_MS,
        place.bar(place.day),
        None,
        weekday,
    )


def plant_wrong_weekday(place: Place) -> None:
    place.day_bars("day_of_week = (day_of_week + 1) % 7", place.day)


def plant_wrong_time_of_day(place: Place) -> None:
    """As the platform's older scripts wrote it."""
    place.connection.execute(
        "UPDATE ohlcv_data SET time_of_day = substr(time_of_day, 1, 5) "
        "WHERE ticker = ? AND timeframe = '5min'",
        (place.ticker,),
    )


def plant_stale_run(place: Place) -> None:
    bar = place.bar(place.day)
    at = place.sessions.index(place.day)
    for day in place.sessions[at + 1 : at + 3]:
        prices = [bar[name] for name in ("open", "high", "low", "close")]
        place.day_bars("open = ?, high = ?, low = ?, close = ?", day, *prices)
    compute_metrics(place.connection, place.ticker)


def plant_spike(place: Place) -> None:
    place.day_bars("high = high * 6", place.day)
    compute_metrics(place.connection, place.ticker)


def plant_split_not_applied(place: Place) -> None:
    """Listed, and the prices before it are still those of the day."""
    add_split(place.connection, place.ticker, place.day.isoformat(), 1, 2)
    multiply_before(place, 2)


def add_split(
    connection: sqlite3.Connection, ticker: str, day: str, split_from: float, split_to: float
) -> None:
    """As the vendor lists it; what else the table wants gets a time."""
    values = {
        "ticker": ticker,
        "execution_date": day,
        "split_from": split_from,
        "split_to": split_to,
        "state": "applied",
    }
    columns = [
        (row[1], row[3] and row[4] is None)
        for row in connection.execute("PRAGMA table_info(_splits)")
    ]
    used = {
        name: values.get(name, "2026-11-20") for name, needed in columns if needed or name in values
    }
    marks = ", ".join("?" * len(used))
    connection.execute(
        f"INSERT INTO _splits ({', '.join(used)}) VALUES ({marks})", list(used.values())
    )


def plant_split_like_jump(place: Place) -> None:
    multiply_before(place, 3)


def multiply_before(place: Place, ratio: float) -> None:
    place.connection.execute(
        "UPDATE ohlcv_data SET open = open * ?1, high = high * ?1, low = low * ?1, close = close * "
        "?1, volume = CAST(volume / ?1 AS INTEGER) WHERE ticker = ?2 AND timestamp < ?3",
        (ratio, place.ticker, midnight_ms(place.day)),
    )
    compute_metrics(place.connection, place.ticker)


def plant_day_range(place: Place) -> None:
    place.day_bars("high = high * 1.08", place.minute_day)
    compute_metrics(place.connection, place.ticker)


def plant_day_open_close(place: Place) -> None:
    """A close at the other end of a wide day, whose 5-minute bars reach there too."""
    day = place.minute_day
    bar = place.bar(day)
    low, high = bar["close"] * 0.9, max(bar["high"], bar["close"] * 1.001)
    place.connection.execute(
        "UPDATE ohlcv_data SET low = ? WHERE ticker = ? AND timeframe = '5min' "
        "AND time_of_day = '11:00:00' AND timestamp BETWEEN ? AND ?",
        (low, place.ticker, midnight_ms(day), midnight_ms(day) + 24 * 60 * MINUTE_MS),
    )
    place.day_bars("low = ?, high = ?, close = ?", day, low, high, low)
    compute_metrics(place.connection, place.ticker)


def plant_day_volume(place: Place) -> None:
    place.day_bars("volume = volume * 3", place.minute_day)
    compute_metrics(place.connection, place.ticker)


def plant_cut_session(place: Place) -> None:
    """Fifty bars from the middle of a session are gone; the volume and the extremes of the day are
    elsewhere."""
    day = place.minute_day
    span = (place.ticker, midnight_ms(day), midnight_ms(day) + 24 * 60 * MINUTE_MS)
    where = "ticker = ? AND timeframe = '5min' AND timestamp BETWEEN ? AND ?"
    regular = f"{where} AND time_of_day BETWEEN '09:30:00' AND '15:55:00'"
    bar = place.bar(day)
    place.connection.execute(
        f"UPDATE ohlcv_data SET high = ?, low = ? WHERE {where} AND time_of_day = '09:30:00'",
        (bar["high"], bar["low"], *span),
    )
    gone = f"{regular} AND time_of_day BETWEEN '10:00:00' AND '14:05:00'"
    place.connection.execute(f"DELETE FROM ohlcv_data WHERE {gone}", span)
    place.connection.execute(f"UPDATE ohlcv_data SET volume = volume * 2.5 WHERE {regular}", span)
    forget_bars(place, [place.ticker], "5min")


def plant_day_bar_missing(place: Place) -> None:
    delete_day(place, [place.ticker], place.minute_day)


def delete_day(place: Place, tickers: Sequence[str], *days: date) -> None:
    for ticker in tickers:
        for day in days:
            place.connection.execute(
                "DELETE FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' AND timestamp = ?",
                (ticker, midnight_ms(day)),
            )
        compute_metrics(place.connection, ticker)
    forget_bars(place, tickers)


def plant_thin_session(place: Place) -> None:
    """Two of three tickers have no bar of the newest session: an answer that was cut. No value
    comes after it."""
    tickers = [
        ticker
        for (ticker,) in place.connection.execute(
            "SELECT DISTINCT ticker FROM _ranges_asked ORDER BY 1"
        )
    ]
    cut = [ticker for number, ticker in enumerate(tickers) if number % 3]
    day = place.sessions[-1]
    place.connection.executemany(
        "DELETE FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' AND timestamp = ?",
        [(ticker, midnight_ms(day)) for ticker in cut],
    )
    place.connection.executemany(
        "DELETE FROM daily_metrics WHERE ticker = ? AND date = ?",
        [(ticker, day.isoformat()) for ticker in cut],
    )
    place.connection.executemany(
        "UPDATE _ranges_asked SET bars = bars - 1 WHERE ticker = ? AND timeframe = '1day'",
        [(ticker,) for ticker in cut],
    )


def plant_gap_in_life(place: Place) -> None:
    delete_day(place, [place.ticker], place.day)


def plant_metrics_rows(place: Place) -> None:
    place.connection.execute(
        "DELETE FROM daily_metrics WHERE ticker = ? AND date = ?",
        (place.ticker, place.day.isoformat()),
    )


def plant_metrics_values(place: Place) -> None:
    place.connection.execute(
        "UPDATE daily_metrics SET rsi_14 = rsi_14 + 0.01 WHERE ticker = ? AND date = ?",
        (place.ticker, place.day.isoformat()),
    )


def plant_lost_bars(place: Place) -> None:
    """The newest bars are gone with their metrics, and the record says that they came."""
    since = place.sessions[-3]
    place.connection.execute(
        "DELETE FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' AND timestamp >= ?",
        (place.ticker, midnight_ms(since)),
    )
    compute_metrics(place.connection, place.ticker)


def plant_universe_list(place: Place) -> None:
    place.connection.execute("UPDATE universe SET total_stocks = total_stocks + 5 WHERE id = 1")


def plant_orphan_rows(place: Place) -> None:
    place.connection.execute("DELETE FROM universe_stocks WHERE ticker = ?", (place.ticker,))
    place.connection.execute("DELETE FROM _ranges_asked WHERE ticker = ?", (place.ticker,))
    place.connection.execute("UPDATE universe SET total_stocks = total_stocks - 1 WHERE id = 1")


@dataclass(frozen=True)
class Plant:
    """`with_minutes`: the ticker must have 5-minute bars. `shown_for`: whom the finding names, the
    ticker when empty. `companions`: rules that the same defect cannot help breaking."""

    put: Callable[[Place], None]
    with_minutes: bool = False
    shown_for: str = ""
    companions: frozenset[str] = frozenset()


PLANTS: dict[str, Plant] = {
    "impossible-bar": Plant(plant_impossible_bar),
    "price-below-tick": Plant(plant_price_below_tick),
    "move-without-volume": Plant(plant_move_without_volume),
    "no-session": Plant(plant_no_session),
    "off-grid": Plant(plant_off_grid, with_minutes=True),
    "second-bar": Plant(plant_second_bar, companions=frozenset({"off-grid", "metrics-values"})),
    "wrong-weekday": Plant(plant_wrong_weekday),
    "wrong-time-of-day": Plant(plant_wrong_time_of_day, with_minutes=True),
    "stale-run": Plant(plant_stale_run),
    "spike": Plant(plant_spike),
    "split-not-applied": Plant(plant_split_not_applied),
    "split-like-jump": Plant(plant_split_like_jump),
    "day-range": Plant(plant_day_range, with_minutes=True),
    "day-open-close": Plant(plant_day_open_close, with_minutes=True),
    "day-volume": Plant(plant_day_volume, with_minutes=True),
    "cut-session": Plant(plant_cut_session, with_minutes=True),
    "day-bar-missing": Plant(
        plant_day_bar_missing, with_minutes=True, companions=frozenset({"gap-in-life"})
    ),
    "thin-session": Plant(plant_thin_session, shown_for=WHOLE_MARKET),
    "gap-in-life": Plant(plant_gap_in_life),
    "metrics-rows": Plant(plant_metrics_rows),
    "metrics-values": Plant(plant_metrics_values),
    "lost-bars": Plant(plant_lost_bars),
    "universe-list": Plant(plant_universe_list, shown_for="audited"),
    "orphan-rows": Plant(plant_orphan_rows),
}
