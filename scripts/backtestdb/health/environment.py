"""All checks in the order in which their findings are read."""

import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from backtestdb.config import PROJECT_DIR, Settings
from backtestdb.console import format_bytes, say
from backtestdb.database import verify_integrity
from backtestdb.errors import BusyError, VerificationError
from backtestdb.health.backup_facts import load_backup_facts
from backtestdb.health.database_facts import rows_of
from backtestdb.health.disks import check_mount, check_protected_folders, uses_wal
from backtestdb.health.facts import load_contents
from backtestdb.health.generated_scripts import check_generated_scripts
from backtestdb.health.lake import check_lake, judge_lake
from backtestdb.health.offsite import check_offsite
from backtestdb.health.permissions import check_permissions
from backtestdb.health.problem import Problem, note, ok, wrong
from backtestdb.health.problems import judge_database
from backtestdb.health.settings import check_settings, find_other_databases, list_databases
from backtestdb.health.system import check_clock, check_sqlite, check_time_zones, check_users
from backtestdb.lake.summary import lake_facts
from backtestdb.untouched import read_shared, read_untouched

# With one of these the database that is missed may be the other one that lies nearby.
LOST = {"no_database", "empty_database"}


def examine(
    environment: Mapping[str, str],
    env_file: Path,
    now: datetime,
    *,
    home: Path,
    folders: Mapping[Path, int],
    online: bool,
) -> list[Problem]:
    """Return all findings of doctor. `folders`: where other databases are looked for. `online`:
    send one request to the vendor, and a test to each receiver."""
    settings, findings = check_settings(environment, env_file)
    if settings is None:
        # Which database is meant is not known: none of them is called another one.
        return [*findings, *list_databases(folders), check_time_zones()]

    findings.append(check_time_zones())
    if is_closed(settings.backup_dir):
        what = f"the folder {settings.backup_dir} of BACKUP_DIR cannot be read by you"
        findings.append(wrong("permissions", what, "choose another folder and change BACKUP_DIR"))
        # What else there is to find is found as with a folder that is not there yet.
        settings = replace(settings, backup_dir=home / "no backups can be read")

    is_wal = uses_wal(settings.database_path)
    findings.append(check_sqlite(sqlite3.sqlite_version_info, is_wal=is_wal))
    findings.append(check_mount(settings.database_path, is_wal=is_wal))

    paths = {
        "DATABASE_PATH": settings.database_path,
        "BACKUP_DIR": settings.backup_dir,
        "project": PROJECT_DIR,
    }
    findings += check_protected_folders(sys.platform, home, paths)
    findings += check_permissions(env_file, settings.backup_dir, settings.database_path)
    findings.append(check_users(settings.database_path))

    findings += check_generated_scripts(settings)
    findings += [*check_lake(settings), *judge_lake(lake_facts(settings))]
    findings += check_offsite(settings, now)

    database = check_database(settings, now, is_wal=is_wal)
    findings += find_other_databases(settings.database_path, folders, is_lost=database.name in LOST)
    findings.append(database)

    vendor_now = None
    if online:
        from backtestdb.health.receivers import ask_receivers  # noqa: PLC0415
        from backtestdb.health.vendor import ask_vendor  # noqa: PLC0415  requests and orjson, for this alone

        answered, vendor_now = ask_vendor(settings)
        findings.append(answered)
        findings += ask_receivers(settings)

    findings.append(check_clock(now, settings.backup_dir, vendor_now))
    return findings


def is_closed(folder: Path) -> bool:
    """Return whether this user may not look into a folder, or not even into one above it."""
    try:
        next(os.scandir(folder), None)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def check_database(settings: Settings, now: datetime, *, is_wal: bool) -> Problem:
    """Judge the database by what status sees at a glance, and by SQLite's quick_check."""
    path = settings.database_path
    database, *_ = load_contents(path, settings.origins["DATABASE_PATH"], now, read_untouched)

    backups = load_backup_facts(
        settings.backup_dir,
        path,
        database.bytes,
        now,
        database_id=database.database_id,
        rows=rows_of(database),
    )
    for problem in judge_database(database, backups):
        if problem.name == "unreadable_database":
            return replace(problem, next_step="check owner and permissions", where="database")
        return replace(problem, where="database")

    # quick_check takes about as long as a copy.
    say(f"reading the whole database ({format_bytes(database.bytes)})")
    try:
        read_untouched(path, verify_integrity, read_shared if is_wal else refuse_to_block)
    except BusyError as error:
        return note("database", str(error), error.next_step)
    except VerificationError as error:
        way_back = "make restore-from-backup" if backups.full.count else "make restore"
        return Problem(
            "damaged_database", f"{path} is damaged: {error}", way_back, where="database"
        )

    return ok("database", f"{path} passes SQLite's quick_check")


def refuse_to_block(path: Path, _look: Callable[[sqlite3.Connection], list[str]]) -> list[str]:
    """Raise BusyError in the place of reading: with a rollback journal no program could commit
    while the whole file is read."""
    raise BusyError(
        f"{path} was not read as a whole: another program is writing to it",
        next_step="make backup checks a copy",
    )


def folders_to_search(working_folder: Path, home: Path) -> dict[Path, int]:
    """Return where programs usually start (cron: at home), and how many levels below to look."""
    return {home: 0, PROJECT_DIR.parent: 1, PROJECT_DIR: 2, working_folder: 2}
