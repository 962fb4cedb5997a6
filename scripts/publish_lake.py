#!/usr/bin/env python3
"""Bring the lake (LAKE in .env) to what the database holds; only what changed is written, as one
version."""

import argparse
from collections.abc import Sequence

from backtestdb.config import load_settings
from backtestdb.console import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--accept-fewer-rows",
        action="store_true",
        help="publish although the database has less than half of the day bars that the lake has",
    )
    chosen = parser.parse_args(arguments)

    from backtestdb.lake.cli import run_publish  # noqa: PLC0415  --help needs no pyarrow

    return run_publish(load_settings(), chosen)


if __name__ == "__main__":
    run(main)
