#!/usr/bin/env python3
"""Bring the database back: from scratch, or from a backup.

From scratch: universe, daily bars with metrics, 5-minute bars, agent schema; what cannot be
downloaded is carried over from the old file. A killed run is continued by the same command. From a
backup: the newest one that verifies, or the file that is named. Either way the old file is kept.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime

from backtestdb.arguments import Parser, add_flag, existing_file, parse_date
from backtestdb.backups.backup_dir import verify_disk_of_database
from backtestdb.config import load_settings
from backtestdb.console import run

NEWEST = ""


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = make_parser().parse_args(arguments)
    settings, now_local = load_settings(), datetime.now().astimezone()
    verify_disk_of_database(settings.database_path)
    if chosen.from_offsite is not None:
        from backtestdb.offsite.cli import run_restore_from_offsite

        return run_restore_from_offsite(
            settings,
            chosen.from_offsite,
            now_local,
            beside=chosen.beside,
            assume_yes=chosen.yes,
            writer=chosen.writer,
        )

    if chosen.from_backup is not None:
        from backtestdb.backups.cli import run_restore_from_backup
        from backtestdb.backups.named import find_named

        named = (
            None
            if chosen.from_backup == NEWEST
            else find_named(chosen.from_backup, settings.backup_dir)
        )
        return run_restore_from_backup(settings, named, now_local, assume_yes=chosen.yes)

    from backtestdb.rebuild.cli import run_rebuild

    return run_rebuild(settings, chosen, now_local)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(__doc__)

    scope = parser.add_mutually_exclusive_group()
    add = scope.add_argument
    add(
        "--from-backup",
        nargs="?",
        const=NEWEST,
        metavar="NAME",
        help="newest that verifies, or a path, a name of make backups, a date",
    )
    add(
        "--from-offsite",
        nargs="?",
        const="",
        metavar="TIME",
        help='newest copy off the machine, or of "2026-11-24 14:05"',
    )
    add_flag(scope, "--tech-only", "tech sector, 1 year, a month of 5-minute bars (default)")
    add_flag(scope, "--full-us-stocks", "all US stocks, 5 years daily")
    add(
        "--russell2000",
        metavar="FILE",
        type=existing_file,
        help="the tickers of FILE, 5 years daily",
    )
    add_flag(scope, "--skip-backfill", "the schema only; sends no request")

    parser.add_argument(
        "--end", type=parse_date, help="last session, YYYY-MM-DD; default: the last completed"
    )

    carried = parser.add_mutually_exclusive_group()
    add_flag(
        carried,
        "--discard-irreplaceable",
        "do not carry over agents, trades, collections from the old file (it is kept)",
    )
    carried.add_argument(
        "--carry-over-from",
        metavar="FILE",
        type=existing_file,
        help="carry them over from FILE, such as make salvage made, instead of the old file",
    )

    add_flag(parser, "--beside", "with --from-offsite: to a file beside the database, compared")
    parser.add_argument(
        "--writer", default="", help="with --from-offsite: whose copies, see make offsites"
    )
    add_flag(
        parser, "--market-only", "make the market tables only, and leave all others to the platform"
    )

    add_flag(parser, "--yes", "replace without asking")
    add_flag(
        parser,
        "--accept-fewer",
        "replace although the new file has far fewer bars than the old one; --yes does not "
        "mean that",
    )

    return parser


if __name__ == "__main__":
    run(main)
