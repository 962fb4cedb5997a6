#!/usr/bin/env python3
"""The copies `<database>.backup-…` that a restore or rebuild kept of what it replaced: list them,
or remove them.

They are no backups: no command checks or prunes them. Remove them once you are sure of
the new database.
"""

from collections.abc import Sequence
from pathlib import Path

from backtestdb.arguments import Parser, add_flag, parse_count
from backtestdb.backups.catalogue import lock_backups, verified
from backtestdb.backups.identity import load_own_catalogue, read_database_id
from backtestdb.config import Settings, load_settings
from backtestdb.console import DONE, confirm, count_of, format_bytes, print_table, run
from backtestdb.errors import DeclinedError, ProjectError
from backtestdb.kept import KeptCopy, find_interrupted_rebuild, find_kept, remove_kept
from backtestdb.names import make_undo_command


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    add_flag(parser, "--remove", "remove them, after asking")
    parser.add_argument(
        "--keep", type=parse_count, default=0, metavar="N", help="but for the newest N"
    )
    add_flag(parser, "--yes", "remove without asking")
    options = parser.parse_args(arguments)
    settings = load_settings()
    copies = find_kept(settings.database_path)
    show(settings, copies)
    if options.remove and copies[options.keep :]:
        remove(settings, copies[options.keep :], assume_yes=options.yes)

    return DONE


def show(settings: Settings, copies: Sequence[KeptCopy]) -> None:
    """Print the kept copies with their sizes, and how to bring one back."""
    folder = settings.database_path.parent
    if not copies:
        print(f"no copy is kept in {folder}")
    else:
        rows = [[copy.path.name, format_bytes(copy.bytes)] for copy in copies]
        print_table(f"kept in {folder}", ("copy", "size"), rows)
        print(
            f"{count_of(len(copies), 'file')}, {format_bytes(sum(copy.bytes for copy in copies))}"
        )
        print(f"bring one back: {make_undo_command(copies[0].path)}")
        print("remove them: make kept ARGS=--remove")

    if rebuild := find_interrupted_rebuild(settings.database_path):
        print(f"an interrupted rebuild: {rebuild.path} ({format_bytes(rebuild.bytes)})")
        print("continue it: the same make restore… command")


def remove(settings: Settings, copies: list[KeptCopy], *, assume_yes: bool) -> None:
    """Remove these copies after asking. Raise ProjectError while no verified backup of this
    database is there."""
    database, backup_dir = settings.database_path, settings.backup_dir
    # A copy may be all that is left.
    if not has_backup(backup_dir, database):
        raise ProjectError(
            f"there is no verified backup of {database} in {backup_dir}: nothing was removed",
            next_step="make backup",
        )

    size = format_bytes(sum(copy.bytes for copy in copies))
    if not confirm(f"Remove {count_of(len(copies), 'file')}, {size}?", assume_yes=assume_yes):
        raise DeclinedError("nothing was removed")
    with lock_backups(backup_dir):  # a restore may be keeping another one
        freed = remove_kept(copies)

    print(f"removed {count_of(len(copies), 'file')}, {format_bytes(freed)} are free again")


def has_backup(backup_dir: Path, database: Path) -> bool:
    catalogue = load_own_catalogue(backup_dir, database, read_database_id(database))
    return bool(verified(catalogue, "full"))


if __name__ == "__main__":
    run(main)
