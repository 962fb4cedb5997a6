"""Universes: named lists of tickers in the tables `universe` and `universe_stocks`.

Tickers are case-sensitive text. NA and TRUE are tickers: nothing here guesses types.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

from backtestdb.console import say
from backtestdb.database import transaction
from backtestdb.errors import UsageError
from backtestdb.market.client import MarketData, NotInPlanError, VendorFaultError
from backtestdb.market.ticker_files import match_tickers, parse_ticker_file

# For plans before the list is there: about 8,000 stocks at a thousand a page, and those delisted
# since.
TICKERS_ABOUT = 8_000
REQUESTS_AT_MOST = 20

TECH_SECTOR_FILE = Path(__file__).with_name("tech_sector.txt")
US_STOCKS = "us-stocks"
RUSSELL2000 = "russell2000"
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
    """Make `tickers` the active members of the universe: new ones come in, missing ones get
    is_active = 0 and stay, because the past of a universe has them, as it has the `delisted` ones.
    One transaction."""
    with transaction(connection):
        return write_universe(
            connection, name, tickers, delisted=delisted, company_names=company_names
        )


def write_universe(
    connection: sqlite3.Connection,
    name: str,
    tickers: Sequence[str],
    *,
    delisted: Sequence[str] = (),
    company_names: Mapping[str, str | None] = MappingProxyType({}),
    schema: str = "main",
) -> UniverseChange:
    """Write a universe like `save_universe`, in the caller's transaction, and in an attached
    database where `schema` names one."""
    tickers = list(dict.fromkeys(tickers))
    connection.execute(
        f"INSERT INTO {schema}.universe (name, description) VALUES (?, ?) "
        "ON CONFLICT (name) DO NOTHING",
        (name, DESCRIPTIONS.get(name, name)),
    )

    query = f"SELECT id FROM {schema}.universe WHERE name = ?"
    (universe_id,) = connection.execute(query, (name,)).fetchone()
    query = f"SELECT ticker FROM {schema}.universe_stocks WHERE universe_id = ? AND is_active = 1"
    before = {ticker for (ticker,) in connection.execute(query, (universe_id,))}

    connection.execute(
        f"UPDATE {schema}.universe_stocks SET is_active = 0 WHERE universe_id = ?", (universe_id,)
    )

    members = {**dict.fromkeys(delisted, 0), **dict.fromkeys(tickers, 1)}
    connection.executemany(
        f"INSERT INTO {schema}.universe_stocks (universe_id, ticker, name, is_active) "
        "VALUES (?, ?, ?, ?) ON CONFLICT (universe_id, ticker) DO UPDATE "
        "SET is_active = excluded.is_active, name = coalesce(excluded.name, name)",
        [
            (universe_id, ticker, company_names.get(ticker), is_active)
            for ticker, is_active in members.items()
        ],
    )

    connection.execute(
        f"UPDATE {schema}.universe SET total_stocks = ?, updated_at = CURRENT_TIMESTAMP "
        "WHERE id = ?",
        (len(tickers), universe_id),
    )

    added = [ticker for ticker in tickers if ticker not in before]
    return UniverseChange(len(tickers), added, sorted(before - set(tickers)))


def load_tickers(connection: sqlite3.Connection, universe: str) -> list[str]:
    """Return active tickers of a universe as they came in; none for an unknown universe."""
    return [ticker for ticker, is_active in load_rows(connection, universe) if is_active]


def load_members(connection: sqlite3.Connection, universe: str) -> list[str]:
    """Return whose bars belong to a universe: its active tickers, and of `us-stocks` the delisted
    ones too, because a history of survivors flatters every strategy. Raise UsageError where there
    is none."""
    active = require_tickers(connection, universe)
    if universe != US_STOCKS:
        return active
    rows = load_rows(connection, universe)
    return active + [ticker for ticker, is_active in rows if not is_active]


def require_tickers(connection: sqlite3.Connection, universe: str) -> list[str]:
    """Return what `load_tickers` does. Raise UsageError with all universes if that is nothing."""
    tickers = load_tickers(connection, universe)
    if tickers:
        return tickers
    names = [name for (name,) in connection.execute("SELECT name FROM universe ORDER BY name")]
    raise UsageError(
        f"no universe {universe!r} with active tickers; there are: {', '.join(names) or 'none'}",
        next_step=f'make create-universe ARGS="--universe {universe}"',
    )


def spell_as_the_vendor(
    connection: sqlite3.Connection, client: MarketData, name: str, session_date: date
) -> None:
    """Rename the members of a universe that a fund's file spells in its own way (`MOGA` for
    `MOG.A`) as they stand in the vendor's answer about a session: one request, without which the
    bars of these tickers are dropped."""
    members = load_tickers(connection, name)
    try:
        traded = [str(row.get("T")) for row in client.fetch_grouped(session_date).rows]
    except (NotInPlanError, VendorFaultError) as error:
        say(f"{name}: the tickers stay as the file spells them: {error}")
        return

    spelt, _ = match_tickers(members, traded)
    if spelt == members:
        return
    save_universe(connection, name, spelt)

    with transaction(connection):
        connection.executemany(
            "DELETE FROM universe_stocks WHERE ticker = ?"
            " AND universe_id = (SELECT id FROM universe WHERE name = ?)",
            [(ticker, name) for ticker in members if ticker not in spelt],
        )


def choose_tickers(
    name: str, tickers: Sequence[str], file: Path | None, watchlist: Sequence[str]
) -> Sequence[str]:
    """Return the members of a new universe: those named, those of the file, or for tech_sector the
    WATCHLIST_TICKERS setting and else the built-in 65. Raise UsageError where nothing says which.
    """
    if file:
        return parse_ticker_file(file)
    if tickers:
        return tickers
    if name == "tech_sector":
        return watchlist or parse_ticker_file(TECH_SECTOR_FILE)

    raise UsageError(
        f"which tickers belong to {name!r}?",
        next_step="give --tickers AAPL,MSFT or --from-file FILE",
    )


def update_us_stocks(
    connection: sqlite3.Connection, client: MarketData, types: Sequence[str], since: date
) -> UniverseChange:
    """Fetch the active stocks of `types` and those delisted on or after `since`, and save the
    universe; the delisted ones are members with is_active = 0."""
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
        # A ticker that lives again under another company is active.
        delisted=[ticker for ticker in delisted if ticker not in active],
        company_names={**delisted, **active},
    )


def load_listed(connection: sqlite3.Connection, universe: str = US_STOCKS) -> list[str]:
    """Return all tickers that a universe has or had, of us-stocks the vendor's list as far as this
    database has it; nothing where the universe was never made."""
    return [ticker for ticker, _ in load_rows(connection, universe)]


def load_rows(connection: sqlite3.Connection, universe: str) -> list[tuple[str, int]]:
    """Return ticker and is_active of all that came in, in that order."""
    return connection.execute(
        "SELECT ticker, is_active FROM universe_stocks JOIN universe ON universe.id = universe_id "
        "WHERE universe.name = ? ORDER BY universe_stocks.id",
        (universe,),
    ).fetchall()
