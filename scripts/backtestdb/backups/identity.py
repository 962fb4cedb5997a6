"""Whose backup is this? Several databases may share a backup folder: a second checkout, another
machine.

A database that this project made has a random id in its table `_identity`; restores and rebuilds
carry it on. A database that the platform made has none, and a backup never writes to its source: it
is known by its real path. The path also tells a database from its copy, which has the same id."""

import os
import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from backtestdb.backups.catalogue import Backup, load_catalogue
from backtestdb.backups.manifest import Manifest
from backtestdb.database import connect, table_names
from backtestdb.files import same_file
from backtestdb.schema import SQL_DIR
from backtestdb.untouched import open_immutable

IDENTITY_TABLE = SQL_DIR / "schema" / "bookkeeping" / "_identity.sql"


@dataclass(frozen=True)
class Identity:
    """- `database_id`: empty for a database without one.
    - `path`: where it lies, links resolved.
    - `earlier_paths`: where it lay before it was moved, as seen at its first backup from `path`.
    """

    database_id: str
    path: str
    earlier_paths: tuple[str, ...] = ()

    def owns(self, manifest: Manifest) -> bool:
        """Return whether a backup is of this database."""
        # Two ids that differ are two databases, whatever the paths say.
        if self.database_id and manifest.database_id and self.database_id != manifest.database_id:
            return False
        if is_same_place(manifest.source_path, self.path):
            return True

        # The same id is not enough: a copied checkout has it too. So a path from before a move
        # counts only while no file stands there.
        return not os.path.lexists(manifest.source_path) and any(
            is_same_place(manifest.source_path, path) for path in self.earlier_paths
        )


def is_same_place(one: str, other: str) -> bool:
    """Compare names with links resolved, then device and inode: a folder may be mounted twice."""
    return os.path.realpath(one) == os.path.realpath(other) or same_file(Path(one), Path(other))


def make_database_id() -> str:
    return uuid.uuid4().hex


def load_database_id(connection: sqlite3.Connection) -> str:
    """Return the id in an open database, empty where there is none."""
    if "_identity" not in table_names(connection):
        return ""
    row = connection.execute("SELECT database_id FROM main._identity").fetchone()
    return str(row[0]) if row else ""


def save_database_id(connection: sqlite3.Connection, database_id: str) -> None:
    """Write the id into a database that is being made."""
    connection.execute(IDENTITY_TABLE.read_text())
    connection.execute(
        "INSERT OR REPLACE INTO _identity (id, database_id) VALUES (1, ?)", (database_id,)
    )


def read_database_id(database: Path) -> str:
    """Return the id of a file that this process has not open: without a lock and without a trace,
    so also of a damaged file and on a mount that SQLite must keep off. Return "" where it cannot be
    read: then the path tells."""
    if not database.is_file():
        return ""
    try:
        # A -wal is left out. The id does not change during a database's life, so the file has it
        # long since.
        with closing(open_immutable(database)) as connection:
            return load_database_id(connection)
    except (sqlite3.Error, UnicodeDecodeError):
        # The second: a damaged schema in SQLite's own message.
        return ""


def identify(database: Path, database_id: str, backups: Iterable[Backup]) -> Identity:
    """Given the id in the file and all backups, newest first, return who the database is."""
    path = os.path.realpath(database)
    manifests = [backup.manifest for backup in backups if backup.manifest]
    here = [manifest for manifest in manifests if is_same_place(manifest.source_path, path)]
    # A file that was lost, emptied or damaged has no id any more: its newest backup tells.
    database_id = database_id or (here[0].database_id if here else "")
    known = next((manifest for manifest in here if manifest.database_id == database_id), None)

    if known or not database_id:
        return Identity(database_id, path, known.earlier_paths if known else ())

    # Its first backup from here: it was moved, or it is a copy. Where it lay a file still stands,
    # or none.
    of_same_id = [manifest for manifest in manifests if manifest.database_id == database_id]
    paths = [
        path for manifest in of_same_id for path in (manifest.source_path, *manifest.earlier_paths)
    ]

    return Identity(
        database_id, path, tuple(p for p in dict.fromkeys(paths) if not os.path.lexists(p))
    )


def identify_current(database: Path, backup_dir: Path) -> Identity:
    return identify(database, read_database_id(database), load_catalogue(backup_dir))


def mark_others(backups: Iterable[Backup], identity: Identity) -> list[Backup]:
    """Return the same backups; those of other databases say so, and do not count."""
    # A foreign file belongs to no database.
    return [
        backup
        if backup.manifest is None or identity.owns(backup.manifest)
        else replace(backup, other_database=backup.manifest.source_path)
        for backup in backups
    ]


def load_own_catalogue(
    backup_dir: Path, database: Path, database_id: str | None = None
) -> list[Backup]:
    """Return every backup in the folder, the newest first, as the database at `database` sees them.
    `database_id`: for a process that has the file open and read it there."""
    backups = load_catalogue(backup_dir)
    if database_id is None:
        database_id = read_database_id(database)
    return mark_others(backups, identify(database, database_id, backups))


def find_identities(backups: Sequence[Backup]) -> list[tuple[Identity, Backup]]:
    """Return every database that has verified backups here, each with its own, newest first."""
    found: list[tuple[Identity, Backup]] = []
    for backup in backups:
        manifest = backup.manifest
        if (
            not backup.is_verified
            or manifest is None
            or any(one.owns(manifest) for one, _ in found)
        ):
            continue
        path = os.path.realpath(manifest.source_path)
        found.append((Identity(manifest.database_id, path, manifest.earlier_paths), backup))

    return found


def load_id_of_source(source: Path, *, read_only: bool = False) -> str:
    """Return the id of a file that SQLite may open, such as a private copy."""
    with closing(connect(source, read_only=read_only, lenient=True)) as connection:
        return load_database_id(connection)
