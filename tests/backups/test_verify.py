"""Whether a file is what its manifest says: every check finds what the others do not."""

import errno
import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest

from backtestdb.backups import verify
from backtestdb.backups.catalogue import Backup, look_at_backup
from backtestdb.backups.identity import Identity
from backtestdb.backups.manifest import Loss, Manifest, load_manifest, write_manifest
from backtestdb.backups.shrinkage import Shrinkage
from backtestdb.backups.verify import (
    examine,
    read_closed,
    verify_against_manifest,
    verify_all,
    verify_backup,
)
from backtestdb.errors import VerificationError
from backup_tools import flip_bit
from manifests import (
    FIRST_TAKEN_AT_UTC,
    ONE_SCRIPT,
    make_exact_manifest,
    name_backup,
    write_one_script,
)
from schema_text import change_text

SCHEMA = """
PRAGMA synchronous = OFF;
BEGIN;
CREATE TABLE agents (id INTEGER PRIMARY KEY, name TEXT, mood TEXT);
CREATE INDEX by_name ON agents (name);
CREATE INDEX by_mood ON agents (mood);
CREATE TABLE signals (id INTEGER PRIMARY KEY, agent_id INTEGER REFERENCES agents (id));
INSERT INTO agents (name, mood) VALUES ('first', 'calm'), ('second', 'bold');
INSERT INTO signals (agent_id) VALUES (1), (77);
COMMIT;
"""
# SQLite never asks whether an index holds what its table does, unless it is asked to.
SWAPPED_INDEXES = """
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema
    WHERE name IN ('by_name', 'by_mood')) - rootpage WHERE name IN ('by_name', 'by_mood');
"""


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    """A full backup with the manifest of what it really holds."""
    path = tmp_path / "backtesting-2026-11-23-020000.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA)
    return describe(path)


def describe(path: Path, **values: object) -> Backup:
    return name_backup(make_exact_manifest(path, **values), path)


def manifest_of(backup: Backup) -> Manifest:
    assert backup.manifest is not None
    return backup.manifest


def swap_indexes(backup: Backup) -> Backup:
    with closing(sqlite3.connect(backup.path)) as database:
        database.executescript(SWAPPED_INDEXES)
    return describe(backup.path)


# ── what is found in a file


def test_findings_are_what_the_file_holds(backup: Backup) -> None:
    findings = examine(backup.path)
    content = backup.path.read_bytes()
    assert findings.bytes == len(content)
    assert findings.sha256 == hashlib.sha256(content).hexdigest()
    assert findings.check == "quick_check"
    assert findings.schema_version == 0
    assert findings.tables == ["agents", "signals"]
    assert findings.rows == {"agents": 2, "signals": 2}
    assert findings.foreign_key_violations == 1
    assert sorted(findings.content_sha256) == ["agents", "signals"]
    assert findings.structure_sha256
    assert findings.broken_rules == ()
    assert examine(backup.path, full=True).check == "integrity_check"


def test_rows_that_break_a_rule_are_listed_up_to_a_number(backup: Backup) -> None:
    with closing(sqlite3.connect(backup.path)) as database:
        database.execute("CREATE TABLE t (x)")
        database.executemany("INSERT INTO t VALUES (?)", [(None,)] * 30)
        database.commit()
    change_text(backup.path, "t", "CREATE TABLE t (x NOT NULL)")
    broken = examine(backup.path).broken_rules
    assert len(broken) == verify.RULES_LISTED
    assert set(broken) == {"NULL value in t.x"}


@pytest.mark.parametrize("flush", [False, True])
def test_only_a_file_just_written_is_flushed_and_then_read_from_the_disk(
    backup: Backup, monkeypatch: pytest.MonkeyPatch, flush: bool
) -> None:
    calls: list[str] = []

    def note(name: str) -> None:
        work: Callable[[Path], None] = getattr(verify, name)

        def work_and_note(path: Path) -> None:
            calls.append(name)
            work(path)

        monkeypatch.setattr(verify, name, work_and_note)

    note("fsync_file")
    note("forget_cached")
    if flush:
        examine(backup.path, flush=True)
    else:
        examine(backup.path)
    assert calls == (["fsync_file", "forget_cached"] if flush else [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"no database" * 100, "cannot be read: file is not"),
    ],
)
def test_file_that_is_no_database_does_not_pass(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "copy.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VerificationError, match=message):
        examine(path)


def test_database_without_a_table_does_not_pass(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "copy.db")) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(VerificationError, match=r"copy\.db holds no table"):
        examine(tmp_path / "copy.db")


def test_mistake_of_the_program_is_not_called_damage(backup: Backup) -> None:
    def read(connection: sqlite3.Connection) -> None:
        connection.close()
        connection.execute("SELECT 1")

    with pytest.raises(sqlite3.ProgrammingError):
        read_closed(backup.path, read)


def test_manifest_of_a_file_says_what_was_found_in_it_and_whose_it_is(backup: Backup) -> None:
    findings = replace(examine(backup.path), schema_version=3, broken_rules=("one",))
    loss = {"agents": Loss(before=40, before_at_utc=FIRST_TAKEN_AT_UTC, now=2)}
    manifest = verify.make_manifest(
        findings,
        kind="irreplaceable",
        file="irreplaceable-2026-11-23-020000.db",
        source=Identity("an id", "/live.db", ("/earlier.db",)),
        shrinkage=Shrinkage(losses=loss, renames={"old": "new"}),
        accepts_loss=True,
        scripts=ONE_SCRIPT,
        taken_at_utc=FIRST_TAKEN_AT_UTC,
        clock_utc=FIRST_TAKEN_AT_UTC - timedelta(hours=1),
    )
    said = asdict(manifest)
    found = asdict(findings)
    del found["tables"]
    assert {name: said[name] for name in found} == found
    assert (manifest.kind, manifest.file) == ("irreplaceable", "irreplaceable-2026-11-23-020000.db")
    assert (manifest.source_path, manifest.database_id) == ("/live.db", "an id")
    assert manifest.earlier_paths == ("/earlier.db",)
    assert (manifest.losses, manifest.renames) == (loss, {"old": "new"})
    assert manifest.accepts_loss
    assert manifest.generated_scripts == ONE_SCRIPT
    assert manifest.taken_at_utc - manifest.clock_utc == timedelta(hours=1)
    write_manifest(manifest, backup.path.with_name("irreplaceable-2026-11-23-020000.json"))
    assert load_manifest(backup.path.with_name("irreplaceable-2026-11-23-020000.json")) == manifest


# ── against a manifest


def test_file_that_is_what_its_manifest_says_passes(backup: Backup) -> None:
    findings = verify_against_manifest(backup.path, manifest_of(backup))
    assert findings.rows == {"agents": 2, "signals": 2}
    verify_backup(backup)
    verify_backup(backup, full=True)


@pytest.mark.parametrize("more", [-1, 1])
def test_file_of_another_size_does_not_pass(backup: Backup, more: int) -> None:
    manifest = replace(manifest_of(backup), bytes=backup.bytes + more)
    with pytest.raises(VerificationError, match=f"{backup.bytes:,} bytes instead of "):
        verify_against_manifest(backup.path, manifest)


def test_file_that_is_missing_does_not_pass(backup: Backup) -> None:
    backup.path.unlink()
    with pytest.raises(VerificationError, match="is missing"):
        verify_against_manifest(backup.path, manifest_of(backup))


def test_flipped_bit_that_sqlite_does_not_see_is_found_by_the_hash(backup: Backup) -> None:
    flip_bit(backup.path, backup.bytes - 1, 0)
    with pytest.raises(VerificationError, match="its SHA-256 are not those of the manifest"):
        verify_against_manifest(backup.path, manifest_of(backup))


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("rows", {"agents": 2, "signals": 3}, "numbers of rows"),
        ("content_sha256", {"agents": "0", "signals": "0"}, "contents of tables"),
    ],
)
def test_manifest_of_other_contents_does_not_pass(
    backup: Backup, name: str, value: object, what: str
) -> None:
    manifest = replace(manifest_of(backup), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match=f"its {what} are not those"):
        verify_against_manifest(backup.path, manifest)


def test_index_that_is_not_its_tables_is_found_by_the_full_check_alone(backup: Backup) -> None:
    backup = swap_indexes(backup)
    verify_against_manifest(backup.path, manifest_of(backup))
    verify_backup(backup)
    for check in (
        lambda: verify_against_manifest(backup.path, manifest_of(backup), full=True),
        lambda: verify_backup(backup, full=True),
        lambda: examine(backup.path, full=True),
    ):
        with pytest.raises(VerificationError, match="integrity_check found"):
            check()


# ── a backup, and all of them


def test_backup_with_a_problem_does_not_pass_and_is_not_read(backup: Backup) -> None:
    for bad in (replace(backup, problem="no room"), replace(backup, manifest=None, problem="bad")):
        with pytest.raises(VerificationError, match=f"{backup.path.name}: {bad.problem}"):
            verify_backup(bad)
    with pytest.raises(VerificationError):
        verify_backup(replace(backup, manifest=None))


def test_backup_passes_only_with_its_generated_scripts(backup: Backup) -> None:
    with_scripts = describe(backup.path, generated_scripts=ONE_SCRIPT)
    with pytest.raises(VerificationError):
        verify_backup(with_scripts)
    write_one_script(with_scripts.scripts_path)
    verify_backup(with_scripts)


def test_backup_on_a_disk_that_cannot_be_read_does_not_pass(
    backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(verify, "hash_file", refuse)
    with pytest.raises(VerificationError, match="cannot be read: Input/output error"):
        verify_backup(backup)


def test_all_backups_are_told_the_bad_ones_with_their_reason(
    backup: Backup, tmp_path: Path
) -> None:
    foreign = tmp_path / "backtesting-2020-01-01-000000.db"
    foreign.write_bytes(b"foreign")
    bad = tmp_path / "backtesting-2026-11-24-020000.db"
    bad.write_bytes(backup.path.read_bytes())
    described = describe(bad)
    flip_bit(bad, described.bytes - 1, 0)
    listed = [look_at_backup(foreign), described, backup]
    said: list[str] = []
    found = verify_all(listed, full=False, say=said.append)
    reason = f"{bad.name}: its SHA-256 are not those of the manifest"
    assert found == {bad: reason}
    assert said == [f"{bad.name}: {reason}", f"{backup.path.name}: ok"]


def test_backup_that_retention_removes_meanwhile_is_not_bad(backup: Backup) -> None:
    backup.manifest_path.unlink()
    backup.path.unlink()
    said: list[str] = []
    assert verify_all([backup], full=False, say=said.append) == {}
    assert said == []
