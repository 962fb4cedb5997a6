"""What traded: the bars of any ticker and session as the vendor would serve them on a given day."""

from dataclasses import dataclass, fields, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from backtestdb.sandbox.intraday import MinuteBars, make_minute_bars
from backtestdb.sandbox.listings import RENAMES, Rename, Universe
from backtestdb.sandbox.made_up import SILENT, Bars, Profiles, join_bars, make_day_bars
from backtestdb.sandbox.noise import uniform
from backtestdb.sandbox.sessions import Floats, Ints, load_sessions
from backtestdb.sandbox.source import load_real_prices, make_real_bars
from backtestdb.sandbox.splits import Split, make_divisors

QUIRK = 50


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Who is listed, which splits there are, and up to which day (included) anything has happened.

    With `junk`, the grouped answers hold a row of junk. Of the `missing` sessions the vendor has no
    bar yet, of a ticker or (None) of all. While today is `unfinished`, its day bars are those of
    an afternoon.
    """

    universe: Universe
    splits: tuple[Split, ...]
    today: date
    junk: bool = False
    missing: tuple[tuple[str | None, date], ...] = ()
    unfinished: bool = False
    renames: tuple[Rename, ...] = RENAMES

    def find_missing(self, ticker: str | None) -> Ints:
        """Return indexes of sessions with nothing of a ticker, or (None) of any."""
        days = [day for whose, day in self.missing if whose is None or whose == ticker]
        found = [load_sessions().index_range(day, day) for day in days]
        return np.array([index for each in found for index in each], dtype=np.int64)


@dataclass(frozen=True)
class ServedBars:
    """Bars in order of time with the start of each in ms UTC and its number of base bars.

    `quirk` in [0, 1) decides which of the vendor's oddities a bar shows.
    """

    start_ms: Ints
    base: Ints
    quirk: Floats
    bars: Bars


def find_sessions(
    exchange: Exchange, ticker: str, first: date, last: date
) -> list[tuple[int, Ints]]:
    """Return the sessions in which a ticker traded, by company, in order of time."""
    universe, found = exchange.universe, []
    wanted = load_sessions().index_range(first, min(last, exchange.today))

    for index in sorted(universe.by_ticker.get(ticker, []), key=lambda i: int(universe.first[i])):
        start = max(wanted.start, int(universe.first[index]))
        stop = min(wanted.stop, int(universe.stop[index]))
        sessions = np.arange(start, max(start, stop))
        if universe.thin[index]:
            sessions = sessions[uniform(universe.profiles.keys[[index]], sessions, SILENT) >= 0.05]
        found.append((index, sessions[~np.isin(sessions, exchange.find_missing(ticker))]))

    return found


def load_day_bars(exchange: Exchange, index: int, sessions: Ints, *, adjusted: bool) -> ServedBars:
    """Return day bars of one listing; each starts at midnight in New York."""
    divisors = load_divisors(exchange, index, sessions, adjusted=adjusted)
    bars = divide(make_unsplit_bars(exchange.universe, index, sessions), divisors)
    return ServedBars(
        start_ms=load_sessions().midnight_ms[sessions],
        base=np.ones(len(sessions), dtype=np.int64),
        quirk=uniform(exchange.universe.profiles.keys[[index]], sessions, QUIRK),
        bars=leave_unfinished(exchange, sessions, bars),
    )


def load_minute_bars(
    exchange: Exchange, index: int, sessions: Ints, *, adjusted: bool
) -> ServedBars:
    """Return 5-minute bars of a listing, 04:00 to 20:00 New York, that fit its day bars."""
    universe, calendar = exchange.universe, load_sessions()
    key = universe.profiles.keys[[index]]
    day = make_unsplit_bars(universe, index, sessions)
    open_ms, regular = calendar.open_ms[sessions], calendar.regular_bars[sessions]

    made = make_minute_bars(key, sessions, open_ms, regular, day, thin=bool(universe.thin[index]))
    divisors = load_divisors(exchange, index, sessions, adjusted=adjusted)
    quirk = uniform(key, made.start_ms, QUIRK)

    return ServedBars(
        made.start_ms, made.base_minutes, quirk, divide(made.bars, divisors[made.row])
    )


def load_grouped_bars(
    exchange: Exchange, session: int, *, adjusted: bool
) -> tuple[Ints, ServedBars]:
    """Return a session's day bars, stamped 16:00 New York, and whose they are."""
    traded, bars, divisors = load_market_days(exchange, session, adjusted=adjusted)
    start = np.full(len(traded), load_sessions().grouped_ms[session])
    quirk = uniform(exchange.universe.profiles.keys[traded], np.array([session]), QUIRK)
    served = leave_unfinished(exchange, np.full(len(traded), session), divide(bars, divisors))
    return traded, ServedBars(start, np.ones_like(start), quirk, served)


def load_market_days(
    exchange: Exchange, session: int, *, adjusted: bool
) -> tuple[Ints, Bars, Floats]:
    """Return the companies that traded in a session, their unsplit day bars, and by what their
    prices are to be divided."""
    universe, at = exchange.universe, np.array([session])
    silent = universe.thin & (uniform(universe.profiles.keys, at, SILENT) < 0.05)
    traded = np.nonzero(
        (universe.first <= session) & (session < universe.stop) & ~silent.astype(bool)
    )[0]
    if session in exchange.find_missing(None):
        traded = traded[:0]

    for ticker in {ticker for ticker, _ in exchange.missing if ticker}:
        if session in exchange.find_missing(ticker):
            traded = traded[~np.isin(traded, universe.by_ticker.get(ticker, []))]

    bars = make_day_bars(select_profiles(universe, traded), at)
    divisors = np.ones(len(traded))

    for ticker in {*load_real_prices(), *(split.ticker for split in exchange.splits)}:
        for index in universe.by_ticker.get(ticker, []):
            place = int(np.searchsorted(traded, index))
            if place < len(traded) and traded[place] == index:
                put(bars, place, make_unsplit_bars(universe, index, at))
                divisors[place] = load_divisors(exchange, index, at, adjusted=adjusted)[0]

    return traded, bars, divisors


def load_market_minutes(exchange: Exchange, session: int) -> tuple[Ints, MinuteBars]:
    """Return a session's 5-minute bars of all tickers, unadjusted, and whose each is."""
    universe, calendar = exchange.universe, load_sessions()
    traded, days, divisors = load_market_days(exchange, session, adjusted=False)
    parts: list[tuple[Ints, MinuteBars]] = []

    for thin in (False, True):
        places = np.nonzero(universe.thin[traded] == thin)[0]
        if not len(places):
            continue
        at = np.full(len(places), session)
        keys = universe.profiles.keys[traded[places]][:, None]
        opens, regular = calendar.open_ms[at], calendar.regular_bars[at]
        made = make_minute_bars(keys, at, opens, regular, days.at(places), thin=thin)

        bars = divide(made.bars, divisors[places][made.row])
        parts.append((traded[places][made.row], replace(made, bars=bars)))

    row, start, base = (
        np.concatenate([getattr(made, name) for _, made in parts])
        for name in ("row", "start_ms", "base_minutes")
    )
    joined = MinuteBars(row, start, base, join_bars([made.bars for _, made in parts]))
    return np.concatenate([listing for listing, _ in parts]), joined


def leave_unfinished(exchange: Exchange, sessions: Ints, bars: Bars) -> Bars:
    """Return bars with today's as during the session: half the volume, another close."""
    today = load_sessions().index_range(exchange.today, exchange.today)
    going_on = np.isin(sessions, np.array(today)) & exchange.unfinished
    if not going_on.any():
        return bars
    close = np.where(going_on, (bars.open + bars.close) / 2, bars.close)
    return replace(
        bars, close=close, volume=np.where(going_on, np.floor(bars.volume / 2), bars.volume)
    )


def make_unsplit_bars(universe: Universe, index: int, sessions: Ints) -> Bars:
    """Return bars before any made-up split: the source where it reaches, made up elsewhere."""
    profile = select_profiles(universe, np.array([index]))
    real = load_real_prices().get(universe.listings[index].ticker)
    return make_real_bars(real, profile, sessions) if real else make_day_bars(profile, sessions)


def select_profiles(universe: Universe, indexes: Ints) -> Profiles:
    """Return the profiles of some listings."""
    every = universe.profiles
    return Profiles(*(column[indexes] for column in vars(every).values()))


def load_divisors(exchange: Exchange, index: int, sessions: Ints, *, adjusted: bool) -> Floats:
    """Return by what a listing's unsplit prices are divided at each session."""
    ticker = exchange.universe.listings[index].ticker
    splits = [split for split in exchange.splits if split.ticker == ticker]
    return make_divisors(splits, sessions, adjusted=adjusted, today=exchange.today)


def divide(bars: Bars, divisors: Floats) -> Bars:
    """Return bars with divided prices and multiplied volume."""
    return Bars(
        open=bars.open / divisors,
        high=bars.high / divisors,
        low=bars.low / divisors,
        close=bars.close / divisors,
        volume=bars.volume * divisors,
        vwap=bars.vwap / divisors,
        trades=bars.trades,
    )


def put(bars: Bars, place: int, one: Bars) -> None:
    """Overwrite one bar, in place."""
    for field in fields(Bars):
        getattr(bars, field.name)[place] = getattr(one, field.name)[0]


def join(parts: list[ServedBars]) -> ServedBars:
    """Return bars of companies that followed each other under one ticker, as one."""
    return ServedBars(
        start_ms=np.concatenate([part.start_ms for part in parts]),
        base=np.concatenate([part.base for part in parts]),
        quirk=np.concatenate([part.quirk for part in parts]),
        bars=join_bars([part.bars for part in parts]),
    )


def make_no_bars() -> ServedBars:
    """Return what an unknown ticker has."""
    none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    columns: dict[str, Any] = {field.name: nothing for field in fields(Bars)}
    bars = Bars(**columns | {"trades": none})
    return ServedBars(none, none, nothing, bars)


def take(served: ServedBars, where: npt.NDArray[np.bool_] | slice) -> ServedBars:
    """Return the bars at some places."""
    return ServedBars(
        served.start_ms[where], served.base[where], served.quirk[where], served.bars.at(where)
    )
