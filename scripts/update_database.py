#!/usr/bin/env python3
"""Bring the stored universes up to the last session: new bars, late corrections, splits,
metrics."""

from collections.abc import Sequence
from datetime import UTC, datetime

from backtestdb.arguments import Parser, parse_date
from backtestdb.config import load_settings
from backtestdb.console import run
from backtestdb.market.cli import add_output_arguments, run_update


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--start", type=parse_date, help="with --again: from this session on")
    parser.add_argument(
        "--end", type=parse_date, help="last session; default: the last completed one"
    )
    add_output_arguments(parser)
    return run_update(load_settings(), parser.parse_args(arguments), datetime.now(UTC))


if __name__ == "__main__":
    run(main)
