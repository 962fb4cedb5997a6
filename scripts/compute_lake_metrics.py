#!/usr/bin/env python3
"""Compute what the lake's bars have no metrics for yet: the 27 of each day, and each session's
summary of 5-minute bars. On processes of this machine, or on the Dask cluster that ENGINE names."""

from collections.abc import Sequence

from backtestdb.arguments import Parser, parse_positive
from backtestdb.config import load_settings
from backtestdb.console import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "--processes", type=parse_positive, help="on this machine; default: one a core"
    )
    chosen = parser.parse_args(arguments)

    from backtestdb.lake.cli import run_metrics  # noqa: PLC0415  --help needs no pyarrow

    return run_metrics(load_settings(), chosen)


if __name__ == "__main__":
    run(main)
