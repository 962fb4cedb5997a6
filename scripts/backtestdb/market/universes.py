"""Universes: named lists of tickers in the tables `universe` and `universe_stocks`.

Tickers are case-sensitive text. NA and TRUE are tickers: nothing here guesses types.
"""

import csv
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

from backtestdb.database import transaction
from backtestdb.errors import UsageError
from backtestdb.market.client import MarketData

# For plans before the list is there: about 8,000 stocks at a thousand a page, and those delisted since.
TICKERS_ABOUT = 8_000
REQUESTS_AT_MOST = 20

TECH_SECTOR_FILE = Path(__file__).with_name("tech_sector.txt")
US_STOCKS = "us-stocks"
CLASS_SEPARATOR = re.compile(r"(?<=\w)[ /-](?=\w)")
NO_LETTER = re.compile(r"[^A-Za-z0-9]")
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


def save_universe(
    connection: sqlite3.Connection,
    name: str,
    tickers: Sequence[str],
    *,
    delisted: Sequence[str] = (),
    company_names: Mapping[str, str] = MappingProxyType({}),
) -> UniverseChange:
    """Make `tickers` the active members of the universe: new ones come in, missing ones get is_active = 0 and
    stay, because the past of a universe has them, as it has the `delisted` ones. One transaction."""
    tickers = list(dict.fromkeys(tickers))
    with transaction(connection):
        connection.execute(
            "INSERT INTO universe (name, description) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            (name, DESCRIPTIONS.get(name, name)),
        )
        (universe_id,) = connection.execute("SELECT id FROM universe WHERE name = ?", (name,)).fetchone()
        before = set(load_tickers(connection, name))
        connection.execute("UPDATE universe_stocks SET is_active = 0 WHERE universe_id = ?", (universe_id,))
        active = dict.fromkeys(tickers, 1)
        members = {**dict.fromkeys(delisted, 0), **active}
        connection.executemany(
            "INSERT INTO universe_stocks (universe_id, ticker, name, is_active) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (universe_id, ticker) DO UPDATE SET is_active = excluded.is_active,"
            " name = coalesce(excluded.name, name)",
            [
                (universe_id, ticker, company_names.get(ticker), is_active)
                for ticker, is_active in members.items()
            ],
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


def load_members(connection: sqlite3.Connection, universe: str) -> list[str]:
    """Whose bars belong to a universe: its active tickers, and of `us-stocks` the delisted ones too, because a
    history of survivors flatters every strategy. Raise UsageError where there is none."""
    active = require_tickers(connection, universe)
    if universe != US_STOCKS:
        return active
    rows = connection.execute(
        "SELECT ticker FROM universe_stocks JOIN universe ON universe.id = universe_id"
        " WHERE universe.name = ? AND is_active = 0 ORDER BY universe_stocks.id",
        (universe,),
    )
    return active + [ticker for (ticker,) in rows]


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
    """One ticker a line, or a CSV with a column ticker or symbol, whatever lines stand before its header; of a
    fund's holdings the shares only. Raise UsageError when there is none in it."""
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
            found = read_holdings(header, rows[number + 1 :], named[0])
            break
    else:
        found = [row[0].strip() for row in rows if len(row) == 1 and not row[0].startswith("#")]
    tickers = list(dict.fromkeys(normalise_ticker(ticker) for ticker in found if ticker and ticker != "-"))
    if not tickers:
        raise UsageError(f"{file} names no ticker: one a line, or a CSV with a column ticker or symbol")
    return tickers


def read_holdings(header: Sequence[str], rows: Sequence[Sequence[str]], ticker_column: int) -> list[str]:
    """The tickers below a header. Where a fund says what each holding is, cash, futures and money market funds
    are no stocks."""
    kind = header.index("asset class") if "asset class" in header else None
    return [
        row[ticker_column].strip()
        for row in rows
        if len(row) > ticker_column
        and (kind is None or (len(row) > kind and row[kind].strip().lower() == "equity"))
    ]


def normalise_ticker(ticker: str) -> str:
    """Funds write `BRK B`, `MOG-A` or `BF/B` where the vendor writes a full stop. Case is kept: it has a meaning."""
    return CLASS_SEPARATOR.sub(".", ticker)


def match_tickers(wanted: Sequence[str], listed: Iterable[str]) -> tuple[list[str], list[str]]:
    """`wanted` in the spelling of the vendor's list (`BRKB` too is its `BRK.B`), and those that are not in it; they
    stay as they are, for the vendor may have their past."""
    listed = set(listed)
    by_letters = {NO_LETTER.sub("", ticker): ticker for ticker in sorted(listed)}
    matched = [
        ticker if ticker in listed else by_letters.get(NO_LETTER.sub("", ticker), ticker) for ticker in wanted
    ]
    return list(dict.fromkeys(matched)), [ticker for ticker in matched if ticker not in listed]


def update_us_stocks(
    connection: sqlite3.Connection, client: MarketData, types: Sequence[str], since: date
) -> UniverseChange:
    """Fetch the active stocks of `types` and those delisted on or after `since`, and save the universe; the
    delisted ones are members with is_active = 0. A ticker that lives again under another company is active."""
    active: dict[str, str] = {}
    delisted: dict[str, str] = {}
    for ticker_type in types:
        active |= {row["ticker"]: row.get("name") for row in client.fetch_tickers(ticker_type).rows}
        gone = client.fetch_delisted(ticker_type, since).rows
        delisted |= {row["ticker"]: row.get("name") for row in gone}
    return save_universe(
        connection,
        US_STOCKS,
        list(active),
        delisted=[ticker for ticker in delisted if ticker not in active],
        company_names={**delisted, **active},
    )


def load_listed(connection: sqlite3.Connection) -> list[str]:
    """The vendor's list as far as this database has it; nothing where us-stocks was never fetched."""
    rows = connection.execute(
        "SELECT ticker FROM universe_stocks JOIN universe ON universe.id = universe_id WHERE universe.name = ?",
        (US_STOCKS,),
    )
    return [ticker for (ticker,) in rows]
