"""Universes: named lists of tickers in the tables `universe` and `universe_stocks`.

Tickers are case-sensitive text. NA and TRUE are tickers: nothing here guesses types.
"""

import csv
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backtestdb.database import transaction
from backtestdb.errors import UsageError

TECH_SECTOR_FILE = Path(__file__).with_name("tech_sector.txt")
DESCRIPTIONS = {
    "tech_sector": "Technology stocks",
    "us-stocks": "All US stocks",
    "russell2000": "Russell 2000",
}


@dataclass(frozen=True)
class UniverseChange:
    """What saving a universe did. `total` counts the active ones."""

    total: int
    added: list[str]
    left: list[str]


def save_universe(connection: sqlite3.Connection, name: str, tickers: Sequence[str]) -> UniverseChange:
    """Make `tickers` the active members of the universe: new ones come in, missing ones get is_active = 0 and
    stay, because the past of a universe has them. One transaction."""
    tickers = list(dict.fromkeys(tickers))
    with transaction(connection):
        connection.execute(
            "INSERT INTO universe (name, description) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            (name, DESCRIPTIONS.get(name, name)),
        )
        (universe_id,) = connection.execute("SELECT id FROM universe WHERE name = ?", (name,)).fetchone()
        before = set(load_tickers(connection, name))
        connection.execute("UPDATE universe_stocks SET is_active = 0 WHERE universe_id = ?", (universe_id,))
        connection.executemany(
            "INSERT INTO universe_stocks (universe_id, ticker) VALUES (?, ?)"
            " ON CONFLICT (universe_id, ticker) DO UPDATE SET is_active = 1",
            [(universe_id, ticker) for ticker in tickers],
        )
        connection.execute(
            "UPDATE universe SET total_stocks = ?, updated_at = CURRENT_TIMESTAMP WHERE id = ?",
            (len(tickers), universe_id),
        )
    added = [ticker for ticker in tickers if ticker not in before]
    return UniverseChange(len(tickers), added, sorted(before - set(tickers)))


def load_tickers(connection: sqlite3.Connection, universe: str) -> list[str]:
    """The active tickers of a universe in the order in which they came in; none for an unknown universe."""
    rows = connection.execute(
        "SELECT ticker FROM universe_stocks JOIN universe ON universe.id = universe_id"
        " WHERE universe.name = ? AND is_active = 1 ORDER BY universe_stocks.id",
        (universe,),
    )
    return [ticker for (ticker,) in rows]


def require_tickers(connection: sqlite3.Connection, universe: str) -> list[str]:
    """Like `load_tickers`, but raise UsageError with the universes that there are."""
    tickers = load_tickers(connection, universe)
    if tickers:
        return tickers
    names = [name for (name,) in connection.execute("SELECT name FROM universe ORDER BY name")]
    raise UsageError(
        f"no universe {universe!r} with active tickers; there are: {', '.join(names) or 'none'}",
        next_step=f'make create-universe ARGS="--universe {universe}"',
    )


def choose_tickers(
    name: str, tickers: Sequence[str], file: Path | None, watchlist: Sequence[str]
) -> Sequence[str]:
    """The members of a new universe: those named, those of the file, or for tech_sector the WATCHLIST_TICKERS
    setting and else the built-in 65. Raise UsageError where nothing says which."""
    if file:
        return parse_ticker_file(file)
    if tickers:
        return tickers
    if name == "tech_sector":
        return watchlist or parse_ticker_file(TECH_SECTOR_FILE)
    raise UsageError(
        f"which tickers belong to {name!r}?", next_step="give --tickers AAPL,MSFT or --from-file FILE"
    )


def parse_ticker_file(file: Path) -> list[str]:
    """One ticker a line, or a CSV with a column ticker or symbol, whatever lines stand before its header.
    Raise UsageError when there is none in it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"no file {file}", next_step="check the path after --from-file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text", next_step="save it as UTF-8 (CSV UTF-8)") from None
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    for number, row in enumerate(rows):
        header = [cell.strip().lower() for cell in row]
        named = [header.index(name) for name in ("ticker", "symbol") if name in header]
        if named:
            found = [row[named[0]].strip() for row in rows[number + 1 :] if len(row) > named[0]]
            break
    else:
        found = [row[0].strip() for row in rows if len(row) == 1 and not row[0].startswith("#")]
    tickers = [ticker for ticker in dict.fromkeys(found) if ticker and ticker != "-"]
    if not tickers:
        raise UsageError(f"{file} names no ticker: one a line, or a CSV with a column ticker or symbol")
    return tickers
