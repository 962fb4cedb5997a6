"""Prove that a backup can be restored by restoring it, into a folder that is emptied afterwards."""

import errno
import json
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backtestdb.backups.backup_dir import DRILL_LOCK, DRILL_SCRATCH, drill_folder
from backtestdb.backups.catalogue import FAILED_DRILL, Backup, is_foreign
from backtestdb.backups.content_hash import hash_contents
from backtestdb.backups.generated_scripts import select_part, verify_scripts
from backtestdb.backups.identity import is_same_place, load_own_catalogue
from backtestdb.backups.manifest import Kind, Manifest
from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings
from backtestdb.console import Say
from backtestdb.database import connect_to_read, count_rows, primary_code, verify_integrity
from backtestdb.errors import ProjectError, SpaceError, VerificationError
from backtestdb.files import (
    append_line,
    choose_free_names,
    exclusive_lock,
    remove_tree,
    write_atomically,
)

KINDS: tuple[Kind, ...] = ("full", "irreplaceable")
NO_ROOM = "there was no room to try it"
EVERY = timedelta(days=7)
AGAIN_AFTER_FAILURE = timedelta(days=1)
HISTORY_LINES = 500
REPORTS_KEPT = 60


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Of one backup. `seconds`: time to recover, from the choice of the backup to a database in its
    place. `lacked_space`: it could not be tried, which says nothing about the backup."""

    backup: str
    kind: str
    is_good: bool
    problem: str
    seconds: float
    bytes: int
    tables: int
    rows: int
    lacked_space: bool = False


@dataclass(frozen=True, kw_only=True)
class Drill:
    """`problem`: why nothing could be restored at all; otherwise each rehearsal has its own.
    `database`: whose backups were restored, a path with links resolved; empty in drills of before
    several could share a folder."""

    started_at_utc: datetime
    is_good: bool
    problem: str
    rehearsals: tuple[Rehearsal, ...]
    database: str = ""


def run_drill(
    settings: Settings, now_local: datetime, *, say: Say = lambda _message: None
) -> tuple[Drill, Path]:
    """Restore the newest backup of each kind and check what comes out; return the result and its
    report.

    Raise ProjectError where there is no backup to try,
    BusyError when a drill is running already, OSError when the backup folder cannot be written.
    """
    folder = drill_folder(settings.backup_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with exclusive_lock(folder / DRILL_LOCK, f"a drill in {folder}"):
        rehearsals = []
        catalogue = load_own_catalogue(settings.backup_dir, settings.database_path)
        for backup in newest_of_each_kind(catalogue):
            say(f"restoring {backup.path.name} into {folder / 'scratch'}")
            rehearsals.append(rehearse(settings, backup, folder / DRILL_SCRATCH, now_local))
            # One that cannot be restored does not count any more: a new one is due at once.
            mark(backup, rehearsals[-1])

        if not rehearsals:
            raise ProjectError(
                f"there is no backup of {settings.database_path} in {settings.backup_dir} to try",
                next_step="make backup",
            )

        is_good = all(rehearsal.is_good for rehearsal in rehearsals)
        database = os.path.realpath(settings.database_path)
        drill = Drill(
            started_at_utc=now_local.astimezone(UTC),
            is_good=is_good,
            problem="",
            rehearsals=tuple(rehearsals),
            database=database,
        )
        return drill, save_drill(drill, folder, now_local)


def mark(backup: Backup, rehearsal: Rehearsal) -> None:
    """Say beside a backup that it could not be restored."""
    if not rehearsal.is_good and not rehearsal.lacked_space:
        write_atomically(backup.path.with_suffix(FAILED_DRILL), rehearsal.problem)


def newest_of_each_kind(catalogue: list[Backup]) -> list[Backup]:
    """Return the newest full and the newest small backup of this database."""
    # Visibly damaged ones too: a drill is to find out. Files without a manifest are no backups, and
    # what an earlier drill could not restore is known.
    ours = [
        backup
        for backup in catalogue
        if not is_foreign(backup)
        and not backup.other_database
        and not backup.path.with_suffix(FAILED_DRILL).exists()
    ]
    return [
        found[0] for kind in KINDS if (found := [backup for backup in ours if backup.kind == kind])
    ]


def rehearse(settings: Settings, backup: Backup, scratch: Path, now_local: datetime) -> Rehearsal:
    """Restore a backup as a real restore does, into the scratch folder."""
    manifest = backup.manifest
    scripts = manifest.generated_scripts if manifest else None

    folders = {
        part: scratch / "generated" / part for part in (scripts.parts if scripts else ()) or ("",)
    }
    aside = replace(
        settings,
        database_path=scratch / "backtesting.db",
        generated_scripts_dirs=tuple(folders.values()),
    )

    problem, seconds, lacked_space = "", 0.0, False
    remove_tree(scratch)
    scratch.mkdir(mode=0o700)

    try:
        started = time.monotonic()
        restore_from_backup(aside, backup.path, now_local)
        seconds = time.monotonic() - started
        verify_restored(aside, manifest)
    except (ProjectError, sqlite3.Error, OSError) as error:
        problem = str(error)
        lacked_space = is_lack_of_space(error)
        if lacked_space:
            problem = f"{NO_ROOM}: {error}"
    finally:
        remove_tree(scratch)

    return Rehearsal(
        backup=backup.path.name,
        kind=backup.kind,
        is_good=not problem,
        problem=problem,
        seconds=round(seconds, 3),
        bytes=backup.bytes,
        tables=len(manifest.rows) if manifest else 0,
        rows=sum(manifest.rows.values()) if manifest else 0,
        lacked_space=lacked_space,
    )


def is_lack_of_space(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return primary_code(error) == sqlite3.SQLITE_FULL
    return isinstance(error, SpaceError) or getattr(error, "errno", None) in {
        errno.ENOSPC,
        errno.EDQUOT,
    }


def verify_restored(settings: Settings, manifest: Manifest | None) -> None:
    """Raise VerificationError unless the restored rows are those of the manifest."""
    if manifest is None:
        raise VerificationError("the manifest is missing or damaged")
    with closing(connect_to_read(settings.database_path)) as connection:
        verify_integrity(connection, full=True)
        rows = count_rows(connection, list(manifest.rows))
        contents = hash_contents(connection, manifest.content_sha256).tables

    for table, expected in manifest.rows.items():
        if rows[table] != expected:
            raise VerificationError(
                f"table {table} came back with {rows[table]:,} rows instead of {expected:,}"
            )

    for table, digest in manifest.content_sha256.items():
        if contents.get(table) != digest:
            raise VerificationError(f"table {table} came back with other rows")

    if manifest.generated_scripts:
        for part, folder in zip(
            manifest.generated_scripts.parts or ("",), settings.generated_scripts_dirs, strict=True
        ):
            verify_scripts(folder, select_part(manifest.generated_scripts, part))


def save_drill(drill: Drill, folder: Path, now_local: datetime) -> Path:
    """Write a report of its own and a line of the history, neither of which grows without end."""
    values = asdict(drill) | {
        "started_at_utc": drill.started_at_utc.isoformat().replace("+00:00", "Z")
    }
    (report,) = choose_free_names(lambda stamp: [folder / f"drill-{stamp}.json"], now_local)
    write_atomically(report, json.dumps(values, indent=1) + "\n")
    append_line(folder / "history.jsonl", json.dumps(values), keep=HISTORY_LINES)
    for old in sorted(folder.glob("drill-*.json"))[:-REPORTS_KEPT]:
        old.unlink()
    return report


def load_drills(backup_dir: Path, database: Path) -> list[Drill]:
    """Return the history of these backups, oldest first, without lines that cannot be read."""
    history = drill_folder(backup_dir) / "history.jsonl"
    lines = history.read_text(errors="replace").splitlines() if history.is_file() else []
    drills = [drill for line in lines if (drill := parse_drill(line))]
    return [
        drill
        for drill in drills
        if not drill.database or is_same_place(drill.database, str(database))
    ]


def load_last_drill(backup_dir: Path, database: Path) -> Drill | None:
    return next(reversed(load_drills(backup_dir, database)), None)


def parse_drill(line: str) -> Drill | None:
    """Given a line of the history, return its drill; None for a line that is none."""
    try:
        values: dict[str, Any] = json.loads(line)
        return Drill(
            started_at_utc=datetime.fromisoformat(values["started_at_utc"]),
            is_good=bool(values["is_good"]),
            problem=str(values["problem"]),
            rehearsals=tuple(Rehearsal(**rehearsal) for rehearsal in values["rehearsals"]),
            database=str(values.get("database", "")),
        )
    except (ValueError, TypeError, KeyError):
        return None


def drill_is_due(last: Drill | None, now_utc: datetime) -> bool:
    """Return whether a week has passed since the last drill, or a day when that one failed. A drill
    that lies ahead was made before the clock was set back, and tells nothing about when the next is
    due."""
    if last is None:
        return True
    age = now_utc - last.started_at_utc
    return age < timedelta(0) or age >= (EVERY if last.is_good else AGAIN_AFTER_FAILURE)
