#!/usr/bin/env python3
"""Put bars of some tickers, with their records, from the lake into the database."""

from collections.abc import Sequence

from backtestdb.arguments import Parser, parse_date, parse_ticker_list
from backtestdb.config import load_settings
from backtestdb.console import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--tickers", type=parse_ticker_list, required=True, help="comma-separated")
    parser.add_argument("--start", type=parse_date, required=True, help="first session, YYYY-MM-DD")
    parser.add_argument(
        "--end", type=parse_date, help="last session; default: the newest that the lake has"
    )
    chosen = parser.parse_args(arguments)

    from backtestdb.lake.export import run_export  # noqa: PLC0415  --help needs no pyarrow

    return run_export(load_settings(), chosen)


if __name__ == "__main__":
    run(main)
