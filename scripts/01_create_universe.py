#!/usr/bin/env python3
"""Create a universe, or bring one up to date: new tickers in, missing ones inactive."""

import argparse
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime

from backtestdb.arguments import Parser, existing_file, parse_positive, parse_ticker_list
from backtestdb.config import Settings, load_settings
from backtestdb.console import DONE, run
from backtestdb.database import connect
from backtestdb.market.client import MarketData
from backtestdb.market.report import name_some
from backtestdb.market.sessions import years_before
from backtestdb.market.ticker_files import match_tickers
from backtestdb.market.universes import (
    US_STOCKS,
    UniverseChange,
    choose_tickers,
    load_listed,
    save_universe,
    update_us_stocks,
)
from backtestdb.schema import ensure_market_schema


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = make_parser().parse_args(arguments)
    settings = load_settings()
    with closing(connect(settings.database_path)) as connection:
        ensure_market_schema(connection)
        if chosen.universe == US_STOCKS and not (chosen.tickers or chosen.from_file):
            since = years_before(datetime.now(UTC).date(), chosen.years)
            types = settings.us_stock_types
            change = update_us_stocks(connection, MarketData(settings), types, since)
        else:
            change = create_named(connection, settings, chosen)

    print(
        f"{chosen.universe}: {change.total} tickers, {len(change.added)} new, {len(change.left)} "
        "left"
    )
    if change.left:
        print(f"inactive now: {name_some(change.left)}")

    return DONE


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(__doc__, example='make create-universe ARGS="--universe tech_sector"')
    parser.add_argument(
        "--universe",
        required=True,
        help="tech_sector, us-stocks, russell2000, or a name of your own",
    )

    parser.add_argument("--tickers", type=parse_ticker_list, default=[], help="A,B,C")
    parser.add_argument(
        "--from-file",
        type=existing_file,
        help="one ticker a line, a CSV with a column ticker or symbol, or a fund's holdings",
    )
    parser.add_argument(
        "--years", type=parse_positive, default=5, help="us-stocks: with those delisted within (5)"
    )

    return parser


def create_named(
    connection: sqlite3.Connection, settings: Settings, chosen: argparse.Namespace
) -> UniverseChange:
    """Create the named universe, or bring it up to date, from the tickers of a file, of the
    settings or of the arguments."""
    tickers = choose_tickers(
        chosen.universe, chosen.tickers, chosen.from_file, settings.watchlist_tickers
    )
    listed = load_listed(connection)
    if listed and chosen.from_file:
        tickers, unknown = match_tickers(tickers, listed)
        if unknown:
            print(f"not in the vendor's list of us-stocks: {', '.join(unknown)}")

    return save_universe(connection, chosen.universe, tickers)


if __name__ == "__main__":
    run(main)
