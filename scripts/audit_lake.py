#!/usr/bin/env python3
"""Read the whole lake: checksums of files, rules about bars, sessions against their record."""

from collections.abc import Sequence

from backtestdb.arguments import Parser, add_flag
from backtestdb.config import load_settings
from backtestdb.console import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    add_flag(parser, "--json", "for programs")
    chosen = parser.parse_args(arguments)

    from backtestdb.lake.cli import run_audit  # noqa: PLC0415  --help needs no pyarrow

    return run_audit(load_settings(), chosen)


if __name__ == "__main__":
    run(main)
