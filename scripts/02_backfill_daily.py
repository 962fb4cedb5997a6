#!/usr/bin/env python3
"""Fetch the daily bars that a universe lacks, and compute their 27 metrics."""

from collections.abc import Sequence
from datetime import UTC, datetime

from backtestdb.arguments import Parser, add_flag, parse_positive
from backtestdb.config import load_settings
from backtestdb.console import run
from backtestdb.market.cli import add_range_arguments, run_backfill, run_metrics_again


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__, example='make backfill-daily ARGS="--universe tech_sector"')
    add_range_arguments(parser)
    parser.add_argument("--years", type=parse_positive, default=1, help="years up to --end (1)")
    add_flag(
        parser,
        "--all-tickers",
        "store the bars of every ticker in answers about the whole market, not only the universe's",
    )
    add_flag(
        parser,
        "--metrics-again",
        "compute the metrics of the stored bars anew, of all universes where none is named; "
        "no request",
    )

    chosen = parser.parse_args(arguments)
    if chosen.metrics_again:
        return run_metrics_again(load_settings(), chosen.universe)

    return run_backfill(load_settings(), "1day", chosen, datetime.now(UTC))


if __name__ == "__main__":
    run(main)
