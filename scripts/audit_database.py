#!/usr/bin/env python3
"""Examine the stored market data by rules: bars, clocks, series, day against 5-minute bars,
metrics, records.

No request is sent and no data is changed. Exit code 1 when there are errors; each finding names the
command that mends it, or can be accepted.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from backtestdb.arguments import Parser, add_flag, parse_ticker_list
from backtestdb.config import load_settings
from backtestdb.console import run
from backtestdb.market.audit.cli import run_audit


def main(arguments: Sequence[str] | None = None) -> int:
    return run_audit(load_settings(), parse_arguments(arguments), datetime.now(UTC))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. Exit with code 2 for options that the command does not know."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--tickers", type=parse_ticker_list, default=[], help="only these, such as AAPL,IBM"
    )
    add_flag(parser, "--all", "every finding, not the first ten of a rule")
    add_flag(parser, "--json", "for programs")

    one = parser.add_mutually_exclusive_group()
    add_flag(one, "--rules", "list the rules and where each comes from")
    one.add_argument(
        "--accept",
        nargs="+",
        metavar="WORD",
        help="RULE TICKER [SESSION]: leave this finding out from now on",
    )
    one.add_argument(
        "--take-back", nargs="+", metavar="WORD", help="RULE TICKER [SESSION]: accept it no longer"
    )

    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
