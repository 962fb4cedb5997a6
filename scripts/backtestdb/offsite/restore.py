"""The way back: which copies to take, and to make backups of them again.

What is fetched becomes ordinary backups in a folder of its own, with their manifests, and goes the
way of every restore from there: verified, confirmed, the old database kept.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backtestdb.backups.catalogue import (
    PREFIXES,
    STAMP_FORMAT,
    Backup,
    look_at_backup,
    scripts_path_of,
)
from backtestdb.backups.identity import Identity
from backtestdb.backups.manifest import Kind, write_manifest
from backtestdb.backups.shrinkage import Shrinkage
from backtestdb.backups.verify import examine, make_manifest
from backtestdb.console import Say
from backtestdb.errors import UsageError, VerificationError
from backtestdb.files import remove_tree
from backtestdb.offsite.chain import newest_first
from backtestdb.offsite.fetch import fetch_copy, fetch_newest, fetch_scripts
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.record import FULL_CLASSES, SMALL_CLASSES, CopyClass, CopyName, Record
from backtestdb.offsite.suspicion import leave_out_suspicious


@dataclass(frozen=True)
class Fetched:
    """Backups made of copies. At least one is there."""

    full: Backup | None
    small: Backup | None
    sent_bytes: int


def parse_moment(text: str) -> datetime:
    """Return the end of a day ("2026-11-24"), a minute ("2026-11-24 14:05") or a second, in local
    time; a time with more digits is meant as it stands. Raise UsageError for anything else."""
    text = text.strip()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f'{text!r} is no time like 2026-11-24 or "2026-11-24 14:05"',
            next_step="make offsites lists what there is",
        ) from None

    units = {10: timedelta(days=1), 16: timedelta(minutes=1), 19: timedelta(seconds=1)}
    if len(text) in units:
        moment += units[len(text)] - timedelta(microseconds=1)
    return moment.astimezone(UTC)


def fetch_backups(
    remote: Remote,
    names: Iterable[CopyName],
    folder: Path,
    *,
    until_utc: datetime | None = None,
    with_full: bool = True,
    say: Say = lambda _message: None,
) -> Fetched:
    """Fetch the newest full copy, and the newest small one that was taken after it, into the empty
    folder `folder`; `until_utc`: of those taken by then. Damaged, missing and suspicious ones are
    passed over with the reason; a named time means the suspicious ones too.

    Raise VerificationError when nothing comes back whole, OffsiteError when the store does not
    answer.
    """
    names = list(names)

    def choose(some: list[CopyName], classes: tuple[CopyClass, ...]) -> Iterable[CopyName]:
        newest = newest_first(some, classes, until_utc)
        return newest if until_utc else leave_out_suspicious(remote, newest, names, say)

    full = fetch_one(remote, choose(names, FULL_CLASSES), folder, say) if with_full else None
    after = [name for name in names if full is None or name.taken_at_utc > full.name.taken_at_utc]
    small = fetch_one(remote, choose(after, SMALL_CLASSES), folder, say)
    if not full and not small:
        when = f" taken by {until_utc.astimezone():%Y-%m-%d %H:%M:%S}" if until_utc else ""
        raise VerificationError(
            f"{remote.store.where} holds no copy{when} that comes back whole",
            next_step="make offsites",
        )

    found = [record for record in (full, small) if record]
    return Fetched(
        full=look_at_backup(folder / file_of(full)) if full else None,
        small=look_at_backup(folder / file_of(small)) if small else None,
        sent_bytes=sum(record.sent_bytes for record in found),
    )


def fetch_one(remote: Remote, names: Iterable[CopyName], folder: Path, say: Say) -> Record | None:
    """Return the first that comes back with its scripts, or else the first that comes back without
    them."""
    arriving = folder / "arriving"
    found: list[CopyName] = []

    def fetch(name: CopyName) -> Record:
        record = fetch_copy(remote, name, arriving)
        found.append(name)
        if record.scripts:
            remove_tree(scripts_path_of(folder / file_of(record)))
            fetch_scripts(remote, record, scripts_path_of(folder / file_of(record)))
        return record

    record = fetch_newest(fetch, names, say)
    # The database is worth more.
    if record is None and found:
        say(f"the generated scripts of {found[0]} do not come back: restoring without them")
        record = without_scripts(fetch_copy(remote, found[0], arriving))
    if record is None:
        return None
    path = folder / file_of(record)
    arriving.rename(path)
    write_its_manifest(record, path)
    say(f"fetched {record.name}")
    return record


def without_scripts(record: Record) -> Record:
    values = json.loads(record.manifest) | {"generated_scripts": None}
    return replace(record, manifest=json.dumps(values, indent=1), scripts=())


def file_of(record: Record) -> str:
    """Return the backup's own name where it had one; otherwise the local time here."""
    kind = kind_of(record.name.copy_class)
    if record.manifest:
        return record.file
    return f"{PREFIXES[kind]}-{record.name.taken_at_utc.astimezone():{STAMP_FORMAT}}.db"


def kind_of(copy_class: CopyClass) -> Kind:
    return "full" if copy_class in FULL_CLASSES else "irreplaceable"


def write_its_manifest(record: Record, path: Path) -> None:
    """Write the backup's own manifest, to the letter; a copy that was taken between two backups
    gets a manifest of what it holds."""
    manifest_path = path.with_suffix(".json")
    if record.manifest:
        manifest_path.write_text(record.manifest)
        return

    findings = examine(path)
    manifest = make_manifest(
        findings,
        kind=kind_of(record.name.copy_class),
        file=path.name,
        source=Identity(record.database_id, record.database),
        shrinkage=Shrinkage({}, {}),
        accepts_loss=False,
        scripts=None,
        taken_at_utc=record.name.taken_at_utc,
        clock_utc=record.name.taken_at_utc,
    )

    for table, count in record.rows.items():
        if manifest.rows.get(table) != count:
            raise VerificationError(
                f"table {table} of {record.name} has {manifest.rows.get(table)} rows, not {count}"
            )

    write_manifest(manifest, manifest_path)


def empty_folder(folder: Path) -> Path:
    """Return the folder for what is fetched: private, and emptied of what a killed restore left."""
    remove_tree(folder)
    folder.mkdir(mode=0o700, parents=True)
    return folder
