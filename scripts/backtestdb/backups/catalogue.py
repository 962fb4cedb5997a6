"""What is in the backup folder, from names and manifests only: no database is opened."""

import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backtestdb.backups.manifest import Kind, Manifest, load_manifest
from backtestdb.errors import VerificationError
from backtestdb.files import DATABASE_COMPANIONS, choose_free_names, exclusive_lock

LOCK_NAME = ".lock"
WAIT_FOR_LOCK_SECONDS = 10.0


PREFIXES: dict[Kind, str] = {"full": "backtesting", "irreplaceable": "irreplaceable"}
NAME = re.compile(r"(backtesting|irreplaceable)-(\d{4}-\d{2}-\d{2}-\d{6})\.db")
STAMP_FORMAT = "%Y-%m-%d-%H%M%S"
SCRIPTS_PREFIX = "claude-scripts-"
PARTIAL = ".partial"
EXPIRED = ".expired"
# Beside a backup that a drill could not restore; it holds the reason.
FAILED_DRILL = ".failed-drill"


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A database file in the backup folder. Without a valid manifest it is foreign: `manifest` is
    None and `problem` says why. `confirmed_at_utc`: what the clock said when it was finished, or
    when a small one was last found to be still up to date. `other_database`: the path of the
    database that it was made from, when that is not the one in use; only identity.py can tell."""

    path: Path
    kind: Kind
    bytes: int
    taken_at_utc: datetime
    confirmed_at_utc: datetime
    manifest: Manifest | None
    problem: str
    other_database: str = ""

    @property
    def is_verified(self) -> bool:
        return self.manifest is not None and not self.problem

    @property
    def counts(self) -> bool:
        return self.is_verified and not self.other_database

    @property
    def is_suspicious(self) -> bool:
        """Return whether its tables had lost rows when it was made, see shrinkage.py."""
        return self.manifest is not None and self.manifest.is_suspicious

    @property
    def manifest_path(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def scripts_path(self) -> Path:
        return scripts_path_of(self.path)


def scripts_path_of(database: Path) -> Path:
    """Return the generated scripts that belong to this backup."""
    return database.with_name(SCRIPTS_PREFIX + database.stem.split("-", 1)[1])


def load_catalogue(backup_dir: Path) -> list[Backup]:
    """Return every backup of every database and every foreign file, the newest first. To count,
    restore or remove, ask load_own_catalogue of identity.py instead: it knows which of them are of
    another database."""
    if not backup_dir.is_dir():
        return []
    stems = {path.with_suffix("") for path in backup_dir.iterdir() if is_backup_name(path)}
    backups = []
    for stem in stems:
        with suppress(FileNotFoundError):  # another process has just removed it
            backups.append(look_at_backup(stem.with_name(stem.name + ".db")))
    return newest_first(backups)


def is_backup_name(path: Path) -> bool:
    """Return whether a file is a backup's database or manifest, by its name: a manifest whose
    database is gone is told about, too."""
    return path.suffix in {".db", ".json"} and bool(NAME.fullmatch(path.stem + ".db"))


def newest_first(backups: Iterable[Backup]) -> list[Backup]:
    return sorted(backups, key=lambda backup: (backup.taken_at_utc, backup.path.name), reverse=True)


def look_at_backup(path: Path) -> Backup:
    """Return what can be seen of a backup without reading its database. `path` need not follow the
    pattern of names: such a file is foreign."""
    size = path.stat().st_size if path.is_file() else 0
    kind: Kind = "irreplaceable" if path.name.startswith(PREFIXES["irreplaceable"]) else "full"
    manifest_path = path.with_suffix(".json")

    try:
        manifest = load_manifest(manifest_path)
        if manifest.kind != kind:
            raise VerificationError(f"the manifest is for a backup of kind {manifest.kind}")
    except VerificationError as error:
        taken = guess_taken_at(path)
        return Backup(
            path=path,
            kind=kind,
            bytes=size,
            taken_at_utc=taken,
            confirmed_at_utc=taken,
            manifest=None,
            problem=str(error),
        )

    confirmed = datetime.fromtimestamp(manifest_path.stat().st_mtime, UTC)
    taken = manifest.taken_at_utc

    return Backup(
        path=path,
        kind=kind,
        bytes=size,
        taken_at_utc=taken,
        confirmed_at_utc=confirmed,
        manifest=manifest,
        problem=find_problem(path, manifest, size),
    )


def find_problem(path: Path, manifest: Manifest, size: int) -> str:
    """Return what can be seen to be wrong without reading the database."""
    if not path.is_file():
        return "the database file is missing"
    if size != manifest.bytes:
        return f"the file has {size:,} bytes instead of {manifest.bytes:,}"

    # A -wal beside a backup would be played into it.
    beside = [suffix for suffix in DATABASE_COMPANIONS if holds_something(Path(f"{path}{suffix}"))]
    if beside:
        return f"a {beside[0]} stands beside it: another program opened it"

    failed = path.with_suffix(FAILED_DRILL)
    return (
        f"a drill could not restore it: {failed.read_text(errors='replace')}"
        if failed.is_file()
        else ""
    )


def holds_something(path: Path) -> bool:
    """Return whether there is anything at `path` that would be played back: an empty -journal is
    what a program leaves that keeps its journals."""
    return os.path.lexists(path) and (not path.is_file() or path.stat().st_size > 0)


def guess_taken_at(path: Path) -> datetime:
    """Return when a file without a manifest was made: from its name, which is in local time, or
    else from its last change."""
    match = NAME.fullmatch(path.name)
    if match:
        try:
            return datetime.strptime(match[2], STAMP_FORMAT).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    changed = path.stat().st_mtime if path.exists() else 0
    return datetime.fromtimestamp(changed, UTC)


def verified(backups: Iterable[Backup], kind: Kind) -> list[Backup]:
    """Return the backups of one kind that count, the newest first."""
    return newest_first(backup for backup in backups if backup.counts and backup.kind == kind)


def choose_name(backup_dir: Path, kind: Kind, now_local: datetime) -> Path:
    """Return a name that no database, manifest or folder of scripts has."""

    def names(stamp: str) -> list[Path]:
        path = backup_dir / f"{PREFIXES[kind]}-{stamp}.db"
        return [
            path,
            path.with_suffix(".json"),
            *([scripts_path_of(path)] if kind == "full" else []),
        ]

    return choose_free_names(names, now_local)[0]


def choose_taken_at(catalogue: Iterable[Backup], now_utc: datetime) -> datetime:
    """Return now, or just after the newest backup when the clock says that this lies ahead: order
    is what a restore and retention go by. Source of the rule: a clock set back must not make the
    newest look old."""
    newest = max((backup.taken_at_utc for backup in catalogue if backup.is_verified), default=None)
    return now_utc if newest is None or newest < now_utc else newest + timedelta(milliseconds=1)


def is_foreign(backup: Backup) -> bool:
    """Return whether a file has no manifest at all, as opposed to a damaged one: it was never said
    to be a backup."""
    return backup.manifest is None and not backup.manifest_path.exists()


def lock_backups(backup_dir: Path) -> AbstractContextManager[None]:
    return exclusive_lock(
        backup_dir / LOCK_NAME,
        f"a backup or restore in {backup_dir}",
        wait_seconds=WAIT_FOR_LOCK_SECONDS,
    )


def partial(path: Path) -> Path:
    """Return the name under which a file or folder is written before it gets its own."""
    return path.with_name(path.name + PARTIAL)
