"""Prove that copies elsewhere bring a database back: into a folder that is emptied."""

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings
from backtestdb.console import Say
from backtestdb.database import connect, count_rows, verify_integrity
from backtestdb.errors import VerificationError
from backtestdb.files import append_line, remove_tree
from backtestdb.offsite.fetch import list_copies
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.owners import choose_own
from backtestdb.offsite.restore import Fetched, empty_folder, fetch_backups

NAME = "drills.jsonl"
LINES_KEPT = 200


@dataclass(frozen=True, kw_only=True)
class OffsiteDrill:
    """`seconds`: from nothing to a database in its place; `fetched_bytes`: what came over the line
    for it. `passed_over`: copies that did not come back; with one of them a drill is not good."""

    started_at_utc: datetime
    is_good: bool
    problem: str
    seconds: float
    fetched_bytes: int
    rows: int
    passed_over: tuple[str, ...]


def hold_drill(
    settings: Settings, remote: Remote, folder: Path, database_id: str, now_local: datetime
) -> OffsiteDrill:
    """Fetch the newest full and small copy, restore them below `folder`, count every table. What is
    found wrong is in the answer; raise OffsiteError only when the store does not answer."""
    scratch = empty_folder(folder / "scratch")
    said: list[str] = []

    problem, fetched, rows = "", None, 0
    started = time.monotonic()
    try:
        names = choose_own(remote, list_copies(remote), settings.database_path, database_id)
        fetched = fetch_backups(remote, names, empty_folder(scratch / "backups"), say=said.append)
        aside = replace(
            settings,
            backup_dir=scratch / "backups",
            database_path=scratch / "live" / "backtesting.db",
            generated_scripts_dirs=make_script_folders(fetched, scratch / "live" / "generated"),
        )
        restore_from_backup(aside, None, now_local, all_are_meant=True)

        seconds = time.monotonic() - started
        rows = verify_rows(aside.database_path, fetched)
    except (VerificationError, sqlite3.Error, OSError) as error:
        problem, seconds = str(error), time.monotonic() - started
    finally:
        remove_tree(scratch)

    passed_over = tuple(line for line in said if line.startswith("passed over"))
    return OffsiteDrill(
        started_at_utc=now_local,
        is_good=not problem and not passed_over,
        problem=problem or "; ".join(passed_over),
        seconds=round(seconds, 3),
        fetched_bytes=fetched.sent_bytes if fetched else 0,
        rows=rows,
        passed_over=passed_over,
    )


def make_script_folders(fetched: Fetched, folder: Path) -> tuple[Path, ...]:
    """Return a folder for each that the full backup was made with."""
    manifest = fetched.full.manifest if fetched.full else None
    scripts = manifest.generated_scripts if manifest else None
    return tuple(folder / part for part in (scripts.parts if scripts else ()) or ("",))


def verify_rows(database: Path, fetched: Fetched) -> int:
    """Raise VerificationError unless every table has the rows that its manifest counts, of the
    small copy where both have it. Return the rows in all."""
    expected: dict[str, int] = {}
    for backup in (fetched.full, fetched.small):
        if backup and backup.manifest:
            expected |= backup.manifest.rows

    with closing(connect(database, read_only=True)) as connection:
        verify_integrity(connection, full=True)
        found = count_rows(connection, list(expected))

    for table, count in expected.items():
        if found[table] != count:
            raise VerificationError(
                f"table {table} came back with {found[table]:,} rows instead of {count:,}"
            )

    return sum(found.values())


def save_offsite_drill(folder: Path, drill: OffsiteDrill) -> None:
    """Append a line to the history."""
    values = asdict(drill) | {"started_at_utc": drill.started_at_utc.isoformat()}
    append_line(folder / NAME, json.dumps(values), keep=LINES_KEPT)


def run_and_save(
    settings: Settings,
    remote: Remote,
    folder: Path,
    database_id: str,
    now_local: datetime,
    say: Say,
) -> OffsiteDrill:
    """Hold a drill, keep its result, and say it."""
    drill = hold_drill(settings, remote, folder, database_id, now_local)
    save_offsite_drill(folder, drill)
    what = "came back" if drill.is_good else f"FAILED: {drill.problem}"
    say(
        f"drill: {drill.rows:,} rows {what} in {drill.seconds:.1f} s, {drill.fetched_bytes:,} "
        "bytes fetched"
    )
    return drill
