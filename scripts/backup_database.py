#!/usr/bin/env python3
"""Back up the database: a checked snapshot with a manifest, and the generated scripts beside it."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from backtestdb import console
from backtestdb.arguments import Parser, add_flag
from backtestdb.backups import report
from backtestdb.backups.adopt import adopt
from backtestdb.backups.backup import Hooks
from backtestdb.backups.catalogue import lock_backups
from backtestdb.backups.identity import load_own_catalogue
from backtestdb.backups.known_folders import remember_folder
from backtestdb.backups.manifest import Kind
from backtestdb.backups.verify import verify_all
from backtestdb.config import Settings, load_settings
from backtestdb.console import format_bytes, say
from backtestdb.errors import UsageError
from backtestdb.scheduling.health import find_overdue
from backtestdb.scheduling.notify import run_backup


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    settings = load_settings()
    if options.list:
        return list_backups(settings, options.json)
    if options.verify:
        return verify_backups(settings, options)

    if options.adopt:
        with lock_backups(settings.backup_dir):
            adopted = adopt(
                options.adopt.absolute(),
                settings.backup_dir,
                settings.database_path,
                datetime.now(UTC),
            )
        of = f" of {adopted.other_database}" if adopted.other_database else ""
        print(f"{adopted.path.name} passed every check and counts as a backup{of} from now on")
        return console.DONE

    return back_up(settings, options)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. Exit with code 2 for options that the command does not know."""
    parser = Parser(__doc__)

    what = parser.add_mutually_exclusive_group()
    add_flag(what, "--irreplaceable-only", "the small backup, no market data")
    add_flag(what, "--list", "show the backups, newest first")
    add_flag(what, "--verify", "read and check every backup again")
    what.add_argument(
        "--adopt", metavar="FILE", type=Path, help="check a foreign file and let it count"
    )

    add_flag(parser, "--json", "results for programs")
    add_flag(parser, "--accept-loss", "tables that lost rows since the last backup were meant to")
    add_flag(
        parser, "--new-folder", "BACKUP_DIR is another folder or disk than before, and is meant"
    )
    add_flag(
        parser,
        "--no-heartbeat",
        "say nothing to HEARTBEAT_URL, and no ON_FAILURE: the scheduler does",
    )
    add_flag(parser, "--full-check", "integrity_check instead of quick_check")

    return parser.parse_args(arguments)


def verify_not_sudo(database: Path, environment: Mapping[str, str]) -> None:
    """Raise ProjectError under sudo."""
    user = environment.get("SUDO_UID", "")
    # The backups would belong to root, and the next one, made without it, could not be written.
    if os.geteuid() == 0 and user and database.is_file() and str(database.stat().st_uid) == user:
        raise UsageError(
            f"{database} is yours, and with sudo its backups would be root's",
            next_step="the same without sudo",
        )


def back_up(settings: Settings, options: argparse.Namespace) -> int:
    """Make the backup that the options name and report it; return the exit code."""
    kind: Kind = "irreplaceable" if options.irreplaceable_only else "full"
    now = datetime.now().astimezone()
    source = settings.database_path
    verify_not_sudo(source, os.environ)
    if source.is_file():
        say(f"source: {source} ({format_bytes(source.stat().st_size)})")
    say(f"target: {settings.backup_dir}")

    if options.no_heartbeat:
        settings = replace(settings, heartbeat_url="", on_failure="")

    if options.new_folder:
        settings.backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        remember_folder(source, settings.backup_dir)

    outcome = run_backup(
        settings,
        kind,
        now,
        full_check=options.full_check,
        accept_loss=options.accept_loss,
        hooks=Hooks(say=say),
        find_overdue=lambda: find_overdue(settings, now),
    )
    if options.json:
        print(report.backups_as_json([outcome.backup], {}))
    else:
        report.show_outcome(
            outcome, load_own_catalogue(settings.backup_dir, settings.database_path)
        )

    return report.print_faults(outcome)


def list_backups(settings: Settings, as_json: bool) -> int:
    report.show(
        f"backups in {settings.backup_dir}",
        load_own_catalogue(settings.backup_dir, settings.database_path),
        {},
        as_json,
    )
    return console.DONE


def verify_backups(settings: Settings, options: argparse.Namespace) -> int:
    backups = load_own_catalogue(settings.backup_dir, settings.database_path)
    bad = verify_all(backups, full=options.full_check, say=say)
    report.show(f"verified in {settings.backup_dir}", backups, bad, options.json)
    return console.FAILED if bad else console.DONE


if __name__ == "__main__":
    console.run(main)
