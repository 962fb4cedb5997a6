#!/usr/bin/env python3
"""Ask the lake in SQL (DuckDB): tables bars_1day, bars_5min, daily_metrics, session_aggregates,
universes, splits, coverage, asked, rejected; bars_of('AAPL'), days_of('AAPL') and
session_bars('2026-11-20') open the fewest files."""

from collections.abc import Sequence

from backtestdb.arguments import Parser, add_flag
from backtestdb.config import load_settings
from backtestdb.console import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("sql", nargs="*", help="one query")
    parser.add_argument("--version", type=int, help="an older version; default: the newest")
    add_flag(parser, "--versions", "list the versions that can be read")
    add_flag(parser, "--csv", "all rows as CSV")
    add_flag(parser, "--json", "for programs")
    chosen = parser.parse_args(arguments)

    from backtestdb.lake.cli import run_query  # noqa: PLC0415  --help needs no pyarrow

    return run_query(load_settings(), chosen)


if __name__ == "__main__":
    run(main)
