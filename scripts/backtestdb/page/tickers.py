"""The list of tickers: those of the universes, and those that have bars without being in one."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backtestdb.database import table_names
from backtestdb.health.coverage_facts import session_of
from backtestdb.timeframes import TIMEFRAMES

TICKERS_AT_ONCE = 500
# From each ticker with bars to the next one: a look-up for a ticker instead of a row for a bar.
TICKERS_WITH_BARS = """
WITH RECURSIVE found (ticker) AS (
    SELECT min(ticker) FROM ohlcv_data WHERE ticker > ?
    UNION ALL
    SELECT (SELECT min(ticker) FROM ohlcv_data WHERE ticker > found.ticker)
    FROM found WHERE ticker IS NOT NULL LIMIT ?)
SELECT ticker FROM found WHERE ticker IS NOT NULL
"""
MEMBERS = """
SELECT s.ticker, s.name, u.name FROM universe_stocks s JOIN universe u ON u.id = s.universe_id
WHERE s.is_active ORDER BY s.ticker, u.name
"""
STORED = (
    "SELECT count(*), min(timestamp), max(timestamp) FROM ohlcv_data"
    " WHERE ticker = ? AND timeframe = ?"
)
SPLITS = """
SELECT execution_date, split_from, split_to FROM _splits
WHERE ticker = ? AND withdrawn_at_utc IS NULL ORDER BY execution_date DESC
"""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A ticker of the list, with the universes that it is in and the company's name, if one is
    stored."""

    ticker: str
    name: str = ""
    universes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredBars:
    """Of one ticker and timeframe: how many, and the sessions of the first and the last, empty
    without one."""

    count: int = 0
    first: str = ""
    last: str = ""


@dataclass(frozen=True)
class ListedSplit:
    """`text`: new shares for old ones, such as 4:1."""

    session_date: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the list."""

    listed: Listed
    daily: StoredBars
    minutes: StoredBars
    last_split: ListedSplit | None = None
    holes: Mapping[str, int] = field(default_factory=dict)


def load_listed(connection: sqlite3.Connection) -> dict[str, Listed]:
    """Return ticker -> what is said of it, by ticker."""
    tables = set(table_names(connection))
    names: dict[str, str] = {}
    universes: dict[str, list[str]] = {}
    if {"universe", "universe_stocks"} <= tables:
        for ticker, name, universe in connection.execute(MEMBERS).fetchall():
            names[ticker] = names.get(ticker) or name or ""
            universes.setdefault(ticker, []).append(universe)

    every = set(universes)
    after: str | None = ""
    while after is not None and "ohlcv_data" in tables:
        found = [
            ticker for (ticker,) in connection.execute(TICKERS_WITH_BARS, (after, TICKERS_AT_ONCE))
        ]
        every.update(found)
        after = found[-1] if len(found) >= TICKERS_AT_ONCE else None

    return {
        ticker: Listed(
            ticker=ticker, name=names.get(ticker, ""), universes=tuple(universes.get(ticker, ()))
        )
        for ticker in sorted(every)
    }


def choose_listed(
    listed: Mapping[str, Listed], words: str, universe: str, holes: Mapping[str, int], order: str
) -> list[Listed]:
    """Given what was typed into the search, return the tickers that begin with it, then those that
    have it inside, then those whose name has it. `universe`: of this one only, empty for all.
    `order`: holes puts those first that miss the most, and leaves out those that miss nothing."""
    wanted = words.strip().upper()
    chosen = [
        each
        for each in listed.values()
        if (not universe or universe in each.universes)
        and (wanted in each.ticker.upper() or wanted in each.name.upper())
    ]

    if order == "holes":
        lacking = [each for each in chosen if holes.get(each.ticker)]
        return sorted(lacking, key=lambda each: (-holes[each.ticker], each.ticker))

    return sorted(
        chosen,
        key=lambda each: (
            not each.ticker.upper().startswith(wanted),
            wanted not in each.ticker.upper(),
            each.ticker,
        ),
    )


def load_rows(
    connection: sqlite3.Connection, listed: Sequence[Listed], holes: Mapping[str, Mapping[str, int]]
) -> list[Row]:
    """Return the lines of some tickers; `holes`: by ticker and timeframe."""
    tables = set(table_names(connection))
    has_bars, has_splits = "ohlcv_data" in tables, "_splits" in tables

    rows = []
    for each in listed:
        daily, minutes = (
            load_stored_bars(connection, each.ticker, timeframe) if has_bars else StoredBars()
            for timeframe in TIMEFRAMES
        )

        splits = load_splits(connection, each.ticker) if has_splits else []
        rows.append(
            Row(
                listed=each,
                daily=daily,
                minutes=minutes,
                last_split=splits[0] if splits else None,
                holes=holes.get(each.ticker, {}),
            )
        )

    return rows


def load_stored_bars(connection: sqlite3.Connection, ticker: str, timeframe: str) -> StoredBars:
    count, first, last = connection.execute(STORED, (ticker, timeframe)).fetchone()
    return StoredBars(count, session_of(first), session_of(last))


def load_splits(connection: sqlite3.Connection, ticker: str) -> list[ListedSplit]:
    """Return the splits of a ticker, the newest first, without those that the vendor withdrew."""
    rows = connection.execute(SPLITS, (ticker,)).fetchall()
    return [ListedSplit(day, f"{new:g}:{old:g}") for day, old, new in rows]
