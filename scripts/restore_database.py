#!/usr/bin/env python3
"""Bring the database back: from scratch, or from a backup.

From scratch: universe, daily bars with metrics, 5-minute bars, agent schema; what cannot be downloaded is
carried over from the old file, which is kept. A killed run is continued by the same command.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime

from backtestdb.config import load_settings
from backtestdb.console import run


def make_parser() -> argparse.ArgumentParser:
    from backtestdb.market.commands import existing_file, parse_date

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument(
        "--tech-only", action="store_true", help="tech sector, 1 year, a month of 5-minute bars (default)"
    )
    scope.add_argument(
        "--russell2000", metavar="FILE", type=existing_file, help="the tickers of FILE, 5 years daily"
    )
    scope.add_argument("--skip-backfill", action="store_true", help="the schema only; sends no request")
    parser.add_argument(
        "--end", type=parse_date, help="last session, YYYY-MM-DD; default: the last completed one"
    )
    parser.add_argument(
        "--discard-irreplaceable",
        action="store_true",
        help="do not carry over agents, trades, collections from the old file (it is kept)",
    )
    parser.add_argument("--yes", action="store_true", help="replace without asking")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    from backtestdb.rebuild.command import run_rebuild

    chosen = make_parser().parse_args(arguments)
    return run_rebuild(load_settings(), chosen, datetime.now().astimezone())


if __name__ == "__main__":
    run(main)
