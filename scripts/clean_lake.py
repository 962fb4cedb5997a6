#!/usr/bin/env python3
"""Forget old versions of the lake, and remove the files that no version needs any more."""

from collections.abc import Sequence

from backtestdb.arguments import Parser, parse_positive
from backtestdb.config import load_settings
from backtestdb.console import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "--keep", type=parse_positive, default=3, help="newest versions to keep (3)"
    )
    parser.add_argument(
        "--days", type=float, default=7.0, help="keep versions of the last so many days too (7)"
    )
    parser.add_argument(
        "--spare-hours",
        type=int,
        default=24,
        help="leave files that were needed within so many hours (24)",
    )

    chosen = parser.parse_args(arguments)

    from backtestdb.lake.cli import run_clean  # noqa: PLC0415  --help needs no pyarrow

    return run_clean(load_settings(), chosen)


if __name__ == "__main__":
    run(main)
