#!/usr/bin/env python3
"""Create a universe, or bring one up to date: new tickers in, missing ones inactive."""

import argparse
from collections.abc import Sequence
from contextlib import closing

from backtestdb.arguments import existing_file, parse_ticker_list
from backtestdb.config import load_settings
from backtestdb.console import DONE, run
from backtestdb.database import connect
from backtestdb.market.commands import name_some
from backtestdb.market.universes import choose_tickers, save_universe
from backtestdb.schema import ensure_schema


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--universe", required=True, help="its name: tech_sector, russell2000, or your own")
    parser.add_argument("--tickers", type=parse_ticker_list, default=[], help="A,B,C")
    parser.add_argument(
        "--from-file", type=existing_file, help="one ticker a line, or a CSV with a column ticker or symbol"
    )
    chosen = parser.parse_args(arguments)
    settings = load_settings()
    tickers = choose_tickers(chosen.universe, chosen.tickers, chosen.from_file, settings.watchlist_tickers)
    with closing(connect(settings.database_path)) as connection:
        ensure_schema(connection, ["recoverable", "bookkeeping"])
        change = save_universe(connection, chosen.universe, tickers)
    print(f"{chosen.universe}: {change.total} tickers, {len(change.added)} new, {len(change.left)} left")
    if change.left:
        print(f"inactive now: {name_some(change.left)}")
    return DONE


if __name__ == "__main__":
    run(main)
