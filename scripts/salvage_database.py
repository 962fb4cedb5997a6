#!/usr/bin/env python3
"""Read everything irreplaceable that is left of a damaged database, and unite it with the newest
good backup.

The damaged file is only read. The result is a new database beside it:
FILE.salvaged-YYYY-MM-DD-HHmmss. Exit code 3 when parts could not be read; they are counted per
table.
"""

import shlex
from collections.abc import Sequence
from datetime import datetime

from backtestdb import console
from backtestdb.arguments import Parser, existing_file
from backtestdb.config import load_settings
from backtestdb.salvage.report import print_salvaged
from backtestdb.salvage.salvage import salvage


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("file", nargs="?", type=existing_file, help="default: the database")
    chosen = parser.parse_args(arguments).file
    settings = load_settings()
    database = chosen.absolute() if chosen else settings.database_path
    salvaged = salvage(
        database,
        settings.backup_dir,
        datetime.now().astimezone(),
        say=console.say,
        in_use=settings.database_path,
    )
    print_salvaged(salvaged)
    print(f"salvaged: {salvaged.path}")
    print(f'next: make restore ARGS="--carry-over-from {shlex.quote(str(salvaged.path))}"')

    return console.DONE if salvaged.is_complete else console.DONE_WITH_HOLES


if __name__ == "__main__":
    console.run(main)
