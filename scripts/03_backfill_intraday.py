#!/usr/bin/env python3
"""Fetch the 5-minute bars that a universe lacks, 04:00 to 20:00 New York."""

from collections.abc import Sequence
from datetime import UTC, datetime

from backtestdb.arguments import Parser, parse_positive
from backtestdb.config import load_settings
from backtestdb.console import run
from backtestdb.market.cli import add_range_arguments, run_backfill


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__, example='make backfill-intraday ARGS="--universe tech_sector"')
    add_range_arguments(parser)
    parser.add_argument(
        "--days", type=parse_positive, default=30, help="calendar days up to --end (30)"
    )
    return run_backfill(load_settings(), "5min", parser.parse_args(arguments), datetime.now(UTC))


if __name__ == "__main__":
    run(main)
