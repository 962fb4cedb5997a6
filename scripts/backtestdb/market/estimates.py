"""Plans before anything is there: on a fresh clone, or for a universe that is still to be fetched."""

import sqlite3
from collections.abc import Sequence

from backtestdb.config import Settings
from backtestdb.console import say
from backtestdb.database import connect, table_names
from backtestdb.market.universes import US_STOCKS, choose_tickers, load_members, load_tickers
from backtestdb.market.us_stocks import TICKERS_ABOUT
from backtestdb.schema import ensure_schema

RUSSELL_ABOUT = 2_000


def connect_to_plan(settings: Settings) -> sqlite3.Connection:
    """The database, read only; an empty one in memory where there is none, or none with the tables of the plan."""
    if settings.database_path.is_file():
        connection = connect(settings.database_path, read_only=True)
        if {"_sessions_asked", "_plan_limits", "universe"} <= set(table_names(connection)):
            return connection
        connection.close()
    connection = sqlite3.connect(":memory:", isolation_level=None)
    ensure_schema(connection)
    return connection


def tickers_to_plan(connection: sqlite3.Connection, settings: Settings, universe: str) -> Sequence[str]:
    """The members of a universe; where it is not there yet, those that it would get, or as many names without a
    meaning as it has about. Raise UsageError for an unknown universe."""
    if load_tickers(connection, universe):
        return load_members(connection, universe)
    if universe == "tech_sector":
        return choose_tickers(universe, [], None, settings.watchlist_tickers)
    about = {US_STOCKS: TICKERS_ABOUT, "russell2000": RUSSELL_ABOUT}.get(universe)
    if about is None:
        return load_members(connection, universe)
    say(f"{universe} is not there yet: planned for about {about:,} tickers")
    return [f"#{number}" for number in range(about)]
