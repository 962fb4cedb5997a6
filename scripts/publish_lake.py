#!/usr/bin/env python3
"""Bring the lake (LAKE in .env) to what the database holds; only changes, as one version."""

from collections.abc import Sequence

from backtestdb.arguments import Parser, add_flag
from backtestdb.config import load_settings
from backtestdb.console import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    add_flag(
        parser,
        "--accept-fewer-rows",
        "publish although the database has less than half of the day bars that the lake has",
    )
    chosen = parser.parse_args(arguments)

    from backtestdb.lake.cli import run_publish  # noqa: PLC0415  --help needs no pyarrow

    return run_publish(load_settings(), chosen)


if __name__ == "__main__":
    run(main)
