"""The universe us-stocks: what the vendor lists, and what it listed in the years that are asked for."""

import sqlite3
from collections.abc import Sequence
from datetime import date

from backtestdb.market.client import MarketData
from backtestdb.market.universes import US_STOCKS, UniverseChange, save_universe

# For plans before the list is there: about 8,000 stocks at a thousand a page, and those delisted since.
TICKERS_ABOUT = 8_000
REQUESTS_AT_MOST = 20


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
