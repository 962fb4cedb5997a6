#!/usr/bin/env python3
"""Bring 5-minute bars of the whole market straight into the lake: from the vendor's flat files, or
by the API."""

from collections.abc import Sequence
from datetime import UTC, datetime

from backtestdb.arguments import Parser, add_flag, parse_date, parse_positive
from backtestdb.config import load_settings
from backtestdb.console import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "--universe", action="append", help="whose coverage to report, and with --by-api whose bars"
    )
    parser.add_argument("--start", type=parse_date, help="first session, YYYY-MM-DD")
    parser.add_argument(
        "--end", type=parse_date, help="last session; default: the last completed one"
    )
    parser.add_argument(
        "--days", type=parse_positive, default=30, help="calendar days up to --end (30)"
    )
    add_flag(parser, "--by-api", "without flat files: one ticker after the other")
    add_flag(parser, "--plan", "print what it would cost and send no request")
    add_flag(parser, "--json", "the plan or the coverage for programs")
    chosen = parser.parse_args(arguments)

    from backtestdb.lake.backfill_cli import run_backfill  # noqa: PLC0415  --help needs no pyarrow

    return run_backfill(load_settings(), chosen, datetime.now(UTC))


if __name__ == "__main__":
    run(main)
