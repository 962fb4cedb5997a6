"""Checks that decide whether a file can be relied on. Nothing here trusts a single check:
`integrity_check` alone says ok to an empty file and to a flipped bit in a value."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from backtestdb.backups.catalogue import Backup, is_foreign
from backtestdb.backups.content_hash import hash_contents
from backtestdb.backups.generated_scripts import verify_scripts
from backtestdb.backups.identity import Identity
from backtestdb.backups.manifest import CONTENT_FORMAT, FORMAT, GeneratedScripts, Kind, Manifest
from backtestdb.backups.shrinkage import Shrinkage
from backtestdb.console import Say
from backtestdb.database import (
    DAMAGE_CODES,
    connect_to_read,
    count_foreign_key_violations,
    count_rows,
    ordinary_table_names,
    primary_code,
    table_names,
    verify_integrity,
)
from backtestdb.errors import ProjectError, VerificationError
from backtestdb.files import forget_cached, fsync_file, hash_file
from backtestdb.schema import schema_version

UNREADABLE_CODES = DAMAGE_CODES | {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}
RULES_LISTED = 20
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a database file holds, found by reading all of it."""

    bytes: int
    sha256: str
    check: str
    schema_version: int
    tables: list[str]
    rows: dict[str, int]
    foreign_key_violations: int
    content_sha256: dict[str, str]
    structure_sha256: str
    broken_rules: tuple[str, ...]


def examine(
    path: Path, *, full: bool = False, flush: bool = False, like: Mapping[str, str] | None = None
) -> Findings:
    """Check a database file that is not written to; raise VerificationError with the first finding.
    `flush`: the file was just written. `like`: content hashes that its own will be compared with.
    """
    verify_not_empty(path)
    if flush:
        # It is to be read from the disk, not from the memory that it was written from.
        fsync_file(path)
        forget_cached(path)

    # Side by side: SQLite and hashlib let go of Python's lock.
    with ThreadPoolExecutor(3) as pool:
        integrity = pool.submit(
            read_closed, path, lambda connection: verify_integrity(connection, full=full)
        )
        digest = pool.submit(hash_file, path)
        contents = pool.submit(
            read_closed, path, lambda connection: read_contents(connection, like)
        )
        broken_rules = integrity.result()
        return Findings(
            broken_rules=tuple(broken_rules[:RULES_LISTED]),
            bytes=path.stat().st_size,
            sha256=digest.result(),
            check="integrity_check" if full else "quick_check",
            **contents.result(),
        )


def read_closed(path: Path, read: Callable[[sqlite3.Connection], Result]) -> Result:
    """Run `read` on a connection of its own; damage that SQLite reports becomes a
    VerificationError."""
    try:
        with closing(connect_to_read(path)) as connection:
            return read(connection)
    except sqlite3.Error as error:
        if primary_code(error) not in UNREADABLE_CODES:
            raise
        raise VerificationError(f"{path.name} cannot be read: {error}") from error


def read_contents(connection: sqlite3.Connection, like: Mapping[str, str] | None) -> dict[str, Any]:
    """Given an open copy and the hashes of a manifest whose format to follow (`like`), return what
    a manifest says of the contents: schema version, tables, rows and hashes."""
    contents = hash_contents(connection, like)
    return {
        "schema_version": schema_version(connection),
        "tables": sorted(table_names(connection)),
        "rows": count_rows(connection, ordinary_table_names(connection)),
        "foreign_key_violations": count_foreign_key_violations(connection),
        "content_sha256": contents.tables,
        "structure_sha256": contents.structure,
    }


def make_manifest(
    findings: Findings,
    *,
    kind: Kind,
    file: str,
    source: Identity,
    shrinkage: Shrinkage,
    accepts_loss: bool,
    scripts: GeneratedScripts | None,
    taken_at_utc: datetime,
    clock_utc: datetime,
) -> Manifest:
    """Given what was found in a file and whose it is, return its manifest."""
    return Manifest(
        format=FORMAT,
        kind=kind,
        file=file,
        taken_at_utc=taken_at_utc,
        clock_utc=clock_utc,
        source_path=source.path,
        database_id=source.database_id,
        earlier_paths=source.earlier_paths,
        schema_version=findings.schema_version,
        bytes=findings.bytes,
        sha256=findings.sha256,
        sqlite_version=sqlite3.sqlite_version,
        check=findings.check,
        rows=findings.rows,
        foreign_key_violations=findings.foreign_key_violations,
        content_sha256=findings.content_sha256,
        content_format=CONTENT_FORMAT,
        structure_sha256=findings.structure_sha256,
        losses=shrinkage.losses,
        accepts_loss=accepts_loss,
        renames=shrinkage.renames,
        generated_scripts=scripts,
        broken_rules=findings.broken_rules,
    )


def verify_not_empty(path: Path) -> None:
    if not path.is_file():
        raise VerificationError(f"{path} is missing")
    if path.stat().st_size == 0:
        raise VerificationError(f"{path.name} is empty")
    if not read_closed(path, table_names):
        raise VerificationError(f"{path.name} holds no table")


def verify_against_manifest(path: Path, manifest: Manifest, *, full: bool = False) -> Findings:
    """Raise VerificationError unless the file is, to the last bit and row, what its manifest
    says."""
    if path.is_file() and path.stat().st_size != manifest.bytes:
        raise VerificationError(
            f"{path.name} has {path.stat().st_size:,} bytes instead of {manifest.bytes:,}"
        )

    findings = examine(path, full=full, like=manifest.content_sha256)
    for what, found, expected in (
        ("SHA-256", findings.sha256, manifest.sha256),
        ("numbers of rows", findings.rows, manifest.rows),
        ("contents of tables", findings.content_sha256, manifest.content_sha256),
    ):
        if found != expected:
            raise VerificationError(f"{path.name}: its {what} are not those of the manifest")

    return findings


def verify_backup(backup: Backup, *, full: bool = False) -> None:
    """Raise VerificationError unless everything that the manifest lists is there, to the last
    bit."""
    if backup.manifest is None or backup.problem:
        raise VerificationError(f"{backup.path.name}: {backup.problem}")
    try:
        verify_against_manifest(backup.path, backup.manifest, full=full)
        if backup.manifest.generated_scripts:
            verify_scripts(backup.scripts_path, backup.manifest.generated_scripts)
    except OSError as error:
        raise VerificationError(f"{backup.path.name} cannot be read: {error.strerror}") from error


def verify_all(backups: Sequence[Backup], *, full: bool, say: Say) -> dict[Path, str]:
    """Return the bad ones with the reason."""
    bad = {}
    for backup in backups:
        # A foreign file makes no promise.
        if is_foreign(backup):
            continue
        try:
            verify_backup(backup, full=full)
            say(f"{backup.path.name}: ok")
        except ProjectError as error:
            # Else retention removed it meanwhile.
            if backup.manifest_path.exists():
                bad[backup.path] = str(error)
                say(f"{backup.path.name}: {error}")

    return bad
