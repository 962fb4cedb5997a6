"""Manifests, and the backups that a catalogue sees in them: of no file, of a file of one byte, of
a real database."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backtestdb.backups.catalogue import Backup, look_at_backup
from backtestdb.backups.manifest import (
    FORMAT,
    GeneratedScripts,
    Kind,
    Manifest,
    write_manifest,
)
from backtestdb.backups.verify import examine

FIRST_TAKEN_AT_UTC = datetime(2026, 11, 23, 2, tzinfo=UTC)
# Kind, rows per table, and fields of Manifest.
Told = tuple[Kind, Mapping[str, int], Mapping[str, Any]]
ONE_SCRIPT = GeneratedScripts(
    folder="claude-scripts-2026-11-23-020000",
    count=1,
    files={"one.py": hashlib.sha256(b"print()\n").hexdigest()},
    links={},
    parts={},
    not_copied={},
)


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


def make_exact_manifest(path: Path, kind: Kind = "full", **values: Any) -> Manifest:
    """The manifest of what the database at `path` really holds; `values`: other fields of it."""
    findings = examine(path)
    return make_manifest(
        path,
        kind,
        FIRST_TAKEN_AT_UTC,
        findings.rows,
        bytes=findings.bytes,
        sha256=findings.sha256,
        content_sha256=findings.content_sha256,
        **values,
    )


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
        bytes=manifest.bytes,
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
    return name_backup(make_manifest(path, "full", FIRST_TAKEN_AT_UTC, {}, **values), path)


def name_backup(manifest: Manifest, path: Path) -> Backup:
    """Write the manifest beside the file, which makes it a backup, and look at that."""
    write_manifest(manifest, path.with_suffix(".json"))
    return look_at_backup(path)


def write_one_script(folder: Path) -> None:
    """What ONE_SCRIPT tells of."""
    folder.mkdir()
    (folder / "one.py").write_text("print()\n")
