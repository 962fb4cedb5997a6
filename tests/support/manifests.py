"""Backups as a catalogue sees them, without files: for rules that go by manifests alone."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backtestdb.backups.catalogue import Backup, look_at_backup
from backtestdb.backups.manifest import FORMAT, Kind, Manifest, write_manifest

FIRST_TAKEN_AT_UTC = datetime(2026, 11, 23, 2, tzinfo=UTC)
# Kind, rows per table, and fields of Manifest.
Told = tuple[Kind, Mapping[str, int], Mapping[str, Any]]


def make_manifest(
    path: Path, kind: Kind, taken_at_utc: datetime, rows: Mapping[str, int], **values: Any
) -> Manifest:
    """A manifest that is true to `path`, as far as a catalogue looks; `values`: fields of it."""
    manifest = Manifest(
        format=FORMAT,
        kind=kind,
        file=path.name,
        taken_at_utc=taken_at_utc,
        clock_utc=taken_at_utc,
        source_path="/live.db",
        database_id="",
        earlier_paths=(),
        schema_version=1,
        bytes=1,
        sha256="",
        sqlite_version="",
        check="quick_check",
        rows=rows,
        foreign_key_violations=0,
        content_sha256=dict.fromkeys(rows, ""),
        content_format=1,
        structure_sha256="",
        losses={},
        accepts_loss=False,
        renames={},
        generated_scripts=None,
    )
    return replace(manifest, **values)


def make_backups(folder: Path, *told: Told) -> list[Backup]:
    """Given backups from the oldest to the newest, an hour apart, return them newest first."""
    backups: list[Backup] = []
    for number, (kind, rows, values) in enumerate(told):
        path = folder / f"{number}.db"
        taken = FIRST_TAKEN_AT_UTC + timedelta(hours=number)
        backups.insert(0, make_backup_of(path, make_manifest(path, kind, taken, rows, **values)))
    return backups


def make_backup_of(path: Path, manifest: Manifest) -> Backup:
    """A verified one, seen when it was taken."""
    return Backup(
        path=path,
        kind=manifest.kind,
        bytes=1,
        taken_at_utc=manifest.taken_at_utc,
        confirmed_at_utc=manifest.taken_at_utc,
        manifest=manifest,
        problem="",
    )


def write_backup_file(folder: Path, stem: str, source: Path, database_id: str = "") -> Backup:
    """A full backup of the database at `source`, of one byte."""
    path = folder / f"{stem}.db"
    path.write_bytes(b"x")
    values = {"source_path": str(source), "database_id": database_id}
    manifest = make_manifest(path, "full", FIRST_TAKEN_AT_UTC, {}, **values)
    write_manifest(manifest, path.with_suffix(".json"))
    return look_at_backup(path)
