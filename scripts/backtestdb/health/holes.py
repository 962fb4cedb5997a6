"""Holes by name: tickers that miss sessions, and tickers of which the vendor has nothing."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from backtestdb.console import count_of, print_paragraph, print_table
from backtestdb.database import column_names, table_names
from backtestdb.errors import DatabaseFileError
from backtestdb.market.coverage import load_coverage
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.market.universes import load_tickers
from backtestdb.untouched import read_untouched

NAMED_AT_MOST = 40
RECORDS = {
    *("universe", "universe_stocks", "ohlcv_data", "_bars_set_aside", "_closed_sessions"),
    *("_coverage", "_ranges_asked", "_sessions_asked", "_ticker_sets", "_tickers_refused"),
    *("_unconfirmed", "_vendor_limits"),
}


@dataclass(frozen=True)
class Holes:
    """Of one universe and timeframe. `failed_of`: ticker -> sessions that were asked for and not
    answered; `silent`: tickers of which the vendor answered that it has nothing in the whole
    range."""

    universe: str
    timeframe: str
    failed_of: dict[str, int]
    silent: list[str]


def load_holes(connection: sqlite3.Connection) -> list[Holes]:
    """Return what was asked for and counted, ticker by ticker: seconds for a whole market."""
    if not has_records(connection):
        return []
    return [find_holes(connection, *row) for row in load_asked(connection)]


def has_records(connection: sqlite3.Connection) -> bool:
    """Return whether this database tells what was asked for; older programs' do not."""
    tables = set(table_names(connection))
    return tables >= RECORDS and "run" in column_names(connection, "_ranges_asked")


def load_asked(
    connection: sqlite3.Connection,
) -> Iterator[tuple[str, str, list[tuple[date, date]]]]:
    """Yield universe, timeframe and the ranges of sessions that were asked for."""
    ranges = "ranges" if "ranges" in column_names(connection, "_coverage") else "''"
    query = (
        f"SELECT universe, timeframe, start_date, end_date, {ranges} FROM _coverage ORDER BY 1, 2"
    )

    for universe, timeframe, start, end, text in connection.execute(query).fetchall():
        pairs = json.loads(text) if text else [(start, end)]
        yield (
            universe,
            timeframe,
            [(date.fromisoformat(one), date.fromisoformat(two)) for one, two in pairs],
        )


def find_holes(
    connection: sqlite3.Connection, universe: str, timeframe: str, ranges: list[tuple[date, date]]
) -> Holes:
    """Return how many sessions failed by ticker, and tickers of which the vendor has nothing."""
    tickers = sorted(load_tickers(connection, universe))
    failed_of: Counter[str] = Counter()
    silent = set(tickers)

    for first, last in ranges:
        sessions = sessions_between(load_calendar(), first, last)
        if not sessions:
            continue
        coverage = load_coverage(connection, tickers, timeframe, sessions)
        failed_of.update(coverage.failed_of)
        silent &= set(coverage.silent)

    return Holes(universe, timeframe, dict(failed_of), sorted(silent))


def show_holes(database: Path) -> bool:
    """Print them; return whether a ticker misses something that can be fetched."""
    if not database.is_file():
        raise DatabaseFileError(f"there is no database at {database}", next_step="make status")
    every = read_untouched(database, load_holes)
    for holes in every:
        show(holes)
    has_holes = any(holes.failed_of for holes in every)
    if not has_holes:
        print("no holes: every session that was asked for is stored or known to be empty")
    return has_holes


def show(holes: Holes) -> None:
    """Print the tickers with most missing sessions, and those of which the vendor has nothing."""
    label = f"{holes.universe} {holes.timeframe}"
    worst = sorted(holes.failed_of.items(), key=lambda entry: (-entry[1], entry[0]))
    if worst:
        title = f"{label}: {count_of(len(worst), 'ticker')} with sessions that could not be fetched"
        print_table(title, ("ticker", "missing"), worst[:NAMED_AT_MOST])
        if len(worst) > NAMED_AT_MOST:
            print_paragraph("  and: " + " ".join(ticker for ticker, _ in worst[NAMED_AT_MOST:]), 4)

    if holes.silent:
        what = (
            f"{label}: the vendor has nothing of {', '.join(holes.silent)}: renamed, delisted "
            "or unknown"
        )
        print_paragraph(f"{what}; nothing to do", 2)
