#!/usr/bin/env python3
"""Restore the newest backup of each kind into a scratch folder, check every row, and measure the
time.

Nothing of yours is touched. Exit code 1 when a backup cannot be restored or comes back different.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from backtestdb import console
from backtestdb.arguments import Parser, add_flag
from backtestdb.backups.drill import Drill, run_drill
from backtestdb.config import load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    add_flag(parser, "--json", "the report itself, for programs")
    as_json = parser.parse_args(arguments).json
    drill, report = run_drill(load_settings(), datetime.now().astimezone(), say=console.say)

    if as_json:
        print(report.read_text(), end="")
    else:
        show(drill, report)

    return console.DONE if drill.is_good else console.FAILED


def show(drill: Drill, report: Path) -> None:
    """Print what the drill did and found, and where its report lies."""
    rows = [
        (
            rehearsal.backup,
            "yes" if rehearsal.is_good else f"NO: {rehearsal.problem}",
            console.format_bytes(rehearsal.bytes),
            rehearsal.rows,
            rehearsal.seconds,
        )
        for rehearsal in drill.rehearsals
    ]
    if rows:
        console.print_table(
            "drill", ("backup", "restored", "size", "rows", "seconds to recover"), rows
        )

    if drill.problem:
        console.print_error(drill.problem, "make backup")
    elif not drill.is_good:
        console.print_error(
            "a backup could not be restored", "make verify-backups, then make backup"
        )

    print(f"report: {report}")


if __name__ == "__main__":
    console.run(main)
