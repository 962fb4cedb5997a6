#!/usr/bin/env python3
"""Restore the database from a backup. What stands there is kept beside it."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from backtestdb import console
from backtestdb.backups.choice import Choice
from backtestdb.backups.report import describe_choice, show_restored
from backtestdb.backups.restore import restore_from_backup
from backtestdb.backups.run import Hooks
from backtestdb.config import load_settings

NEWEST = Path()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    settings = load_settings()

    def approve(choice: Choice) -> bool:
        console.say(describe_choice(choice))
        return console.confirm(f"Replace {settings.database_path}?", assume_yes=options.yes)

    restored = restore_from_backup(
        settings,
        None if options.from_backup == NEWEST else options.from_backup.expanduser().absolute(),
        datetime.now().astimezone(),
        hooks=Hooks(say=console.say),
        approve=approve,
    )
    show_restored(restored, settings.database_path)
    return console.DONE


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--from-backup",
        nargs="?",
        const=NEWEST,
        type=Path,
        metavar="PATH",
        required=True,
        help="the newest backup that verifies, or the file PATH",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before replacing the database")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    console.run(main)
