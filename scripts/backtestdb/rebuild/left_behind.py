"""Stored bars that a rebuild leaves behind, and the command that brings them back."""

import shlex
import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from datetime import date

from backtestdb.database import table_names
from backtestdb.market.universes import load_listed
from backtestdb.new_york import date_of, midnight_ms
from backtestdb.rebuild.work_file import RebuildSpec
from backtestdb.timeframes import LABELS

COMMANDS = {"1day": "make backfill-daily", "5min": "make backfill-intraday"}


@dataclass(frozen=True)
class LeftBehind:
    """`bars` of one `timeframe` that stay in the kept file only. `whose`: a universe, or words
    where there is none. `way_back`: the command that fetches them again, empty where none does."""

    bars: int
    timeframe: str
    whose: str
    way_back: str

    def describe(self) -> str:
        label = LABELS.get(self.timeframe, f"bars of timeframe {self.timeframe}")
        back = f"back with: {self.way_back}" if self.way_back else "only the kept file has them"
        return f"not carried over: {self.bars:,} {label} {self.whose}; {back}"


def load_left_behind(connection: sqlite3.Connection, plan: RebuildSpec) -> list[LeftBehind]:
    """Given the old database and what a rebuild will fetch, return what will be missing, per
    timeframe and universe.

    Bars of the planned universe are missing where they lie before the planned start. A ticker of
    several universes is counted for the first of them by name.
    """
    if "ohlcv_data" not in table_names(connection):
        return []

    universe_of, planned = load_universe_of(connection), planned_tickers(connection, plan)
    starts = {"1day": plan.daily_start, "5min": plan.intraday_start}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    firsts: dict[tuple[str, str], int] = {}

    # The index of ticker, timeframe and timestamp answers this without a look at the bars.
    groups = connection.execute(
        "SELECT ticker, timeframe, count(*), min(timestamp) FROM ohlcv_data GROUP BY ticker, "
        "timeframe"
    ).fetchall()

    for ticker, timeframe, stored, first in groups:
        start = starts.get(timeframe, "") if ticker in planned else ""
        name = plan.universe if start else universe_of.get(ticker, "")
        missing = count_before(connection, ticker, timeframe, start) if start else stored
        if missing:
            key = (timeframe, name)
            counts[key] += missing
            firsts[key] = min(first, firsts.get(key, first))

    return [
        make_left_behind(timeframe, name, counts[timeframe, name], firsts[timeframe, name], plan)
        for timeframe, name in sorted(counts)
    ]


def load_universe_of(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the name of a universe for each ticker that is in one."""
    if not {"universe", "universe_stocks"} <= set(table_names(connection)):
        return {}
    rows = connection.execute(
        "SELECT ticker, min(universe.name) FROM universe_stocks "
        "JOIN universe ON universe.id = universe_id GROUP BY ticker"
    )
    return dict(rows.fetchall())


def planned_tickers(connection: sqlite3.Connection, plan: RebuildSpec) -> set[str]:
    """Return the plan's, or the old database's members of a universe that the vendor lists."""
    if plan.tickers or not plan.universe:
        return set(plan.tickers)
    return set(load_listed(connection, plan.universe))


def count_before(connection: sqlite3.Connection, ticker: str, timeframe: str, start: str) -> int:
    query = "SELECT count(*) FROM ohlcv_data WHERE ticker = ? AND timeframe = ? AND timestamp < ?"
    values = (ticker, timeframe, midnight_ms(date.fromisoformat(start)))
    return int(connection.execute(query, values).fetchone()[0])


def make_left_behind(
    timeframe: str, universe: str, bars: int, first_ms: int, plan: RebuildSpec
) -> LeftBehind:
    if not universe or timeframe not in COMMANDS:
        return LeftBehind(bars, timeframe, f"of {universe}" if universe else "of no universe", "")
    whose = f"of {universe}"
    if universe == plan.universe:
        whose += " from before the planned start"
    options = f"--universe {shlex.quote(universe)} --start {date_of(first_ms)}"
    return LeftBehind(bars, timeframe, whose, f'{COMMANDS[timeframe]} ARGS="{options}"')
