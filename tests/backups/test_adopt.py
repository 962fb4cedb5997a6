"""A database file without a manifest becomes a backup, and a backup never changes hands unseen."""

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backtestdb.backups import adopt as adopt_module
from backtestdb.backups.adopt import adopt, leave_wal, verify_may_change_hands, whose
from backtestdb.backups.catalogue import EXPIRED, Backup, look_at_backup
from backtestdb.backups.identity import Identity, save_database_id
from backtestdb.backups.verify import Findings, examine
from backtestdb.errors import UsageError, VerificationError
from manifests import FIRST_TAKEN_AT_UTC, make_backup_of, make_manifest, write_backup_file

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NAME = "backtesting-2026-11-20-020000.db"
SMALL_NAME = "irreplaceable-2026-11-20-020000.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m backups").mkdir()
    return tmp_path / "m backups"


def make(path: Path, *, database_id: str = "", journal: str = "DELETE") -> Path:
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
        database.execute("CREATE TABLE lab (name TEXT)")
        database.execute("INSERT INTO lab VALUES ('a')")
        if database_id:
            save_database_id(database, database_id)
        database.commit()
    return path


def take(path: Path, folder: Path) -> Backup:
    return adopt(path, folder, folder.parent / "live.db", NOW)


@pytest.mark.parametrize("name", [NAME, SMALL_NAME])
def test_adopted_file_is_a_backup_of_the_database_taken_when_its_name_says(
    folder: Path, name: str
) -> None:
    path = make(folder / name)
    scripts = folder / "claude-scripts-2026-11-20-020000"
    scripts.mkdir()
    (scripts / "one.py").write_text("print()\n")
    backup = take(path, folder)
    assert backup.counts
    assert backup == look_at_backup(path)
    manifest = backup.manifest
    assert manifest is not None
    assert manifest.kind == backup.kind == ("full" if name == NAME else "irreplaceable")
    assert manifest.source_path == os.path.realpath(folder.parent / "live.db")
    assert manifest.taken_at_utc == datetime(2026, 11, 20, 2).astimezone(UTC)
    assert manifest.clock_utc == NOW
    assert (manifest.check, manifest.rows) == ("integrity_check", {"lab": 1})
    assert (manifest.losses, manifest.renames, manifest.accepts_loss) == ({}, {}, False)
    assert (manifest.generated_scripts is not None) is (name == NAME)
    assert not path.with_suffix(".json.partial").exists()


def test_full_backup_without_scripts_is_adopted_without_any(folder: Path) -> None:
    manifest = take(make(folder / NAME), folder).manifest
    assert manifest is not None
    assert manifest.generated_scripts is None


@pytest.mark.parametrize("place", ["a", "z", "m backups"])
def test_file_elsewhere_or_of_another_name_is_not_adopted(folder: Path, place: str) -> None:
    name = "mine.db" if place == "m backups" else NAME
    path = make(folder.parent / place / name)
    with pytest.raises(UsageError, match="is not named backtesting-YYYY-MM-DD-HHmmss"):
        take(path, folder)


def test_file_through_a_link_to_the_folder_is_adopted(folder: Path, tmp_path: Path) -> None:
    make(folder / NAME)
    (tmp_path / "link").symlink_to(folder)
    assert take(tmp_path / "link" / NAME, folder).path == folder / NAME


def test_file_is_checked_in_full_before_and_after_its_log_is_merged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: list[tuple[bool, bool]] = []

    def examine_and_note(path: Path, *, full: bool = False, flush: bool = False) -> Findings:
        how.append((full, flush))
        return examine(path, full=full, flush=flush)

    monkeypatch.setattr(adopt_module, "examine", examine_and_note)
    path = make(folder / NAME, journal="WAL")
    assert path.read_bytes()[18:20] == b"\2\2"
    take(path, folder)
    assert how == [(True, False), (True, True)]
    assert path.read_bytes()[18:20] == b"\1\1"


def test_file_that_another_program_has_open_is_not_adopted(folder: Path) -> None:
    path = make(folder / NAME, journal="WAL")
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM lab").fetchall()
        with pytest.raises(VerificationError, match=f"{NAME} is in use by another program"):
            take(path, folder)
    assert not look_at_backup(path).is_verified


def test_file_that_cannot_be_written_is_an_error_of_its_own(folder: Path) -> None:
    path = make(folder / NAME, journal="WAL")
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\3\2")  # for a format that is yet to come: SQLite reads it and writes nothing
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        leave_wal(path)


def test_new_manifest_is_flushed_and_calls_a_removal_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(folder / NAME)
    path.with_suffix(EXPIRED).write_text("{}")
    flushed: list[set[str]] = []
    monkeypatch.setattr(
        adopt_module,
        "fsync_directory",
        lambda one: flushed.append({path.name for path in one.iterdir()}),
    )
    take(path, folder)
    assert flushed == [{NAME, NAME.replace(".db", ".json")}]


def test_backup_that_counts_already_is_left_as_it_is(folder: Path) -> None:
    path = make(folder / NAME)
    take(path, folder)
    before = path.with_suffix(".json").read_bytes()
    assert adopt(path, folder, folder.parent / "live.db", FIRST_TAKEN_AT_UTC).counts
    assert path.with_suffix(".json").read_bytes() == before


def test_backup_of_a_database_that_is_there_is_not_taken_from_it(folder: Path) -> None:
    other = make(folder.parent / "other.db")
    write_backup_file(folder, NAME.removesuffix(".db"), other)
    with pytest.raises(UsageError, match="is a backup of another database"):
        take(folder / NAME, folder)


def of_another(folder: Path, source: Path, database_id: str = "") -> Backup:
    path = folder / NAME
    values = {"source_path": str(source), "database_id": database_id}
    manifest = make_manifest(path, "full", FIRST_TAKEN_AT_UTC, {}, **values)
    return replace(make_backup_of(path, manifest), other_database=str(source))


@pytest.mark.parametrize(
    ("source", "database_id", "may"),
    [
        ("gone.db", "", True),
        ("gone.db", "an id", False),
        ("a there.db", "", False),
        ("z there.db", "", False),
        # The first format named the file itself.
        (f"m backups/{NAME}", "", True),
        (f"m backups/{NAME}", "an id", False),
    ],
)
def test_backup_changes_hands_only_when_its_database_is_gone_without_a_trace(
    folder: Path, source: str, database_id: str, may: bool
) -> None:
    for name in ("a there.db", "z there.db", f"m backups/{NAME}"):
        (folder.parent / name).touch()
    backup = of_another(folder, folder.parent / source, database_id)
    if may:
        verify_may_change_hands(backup)
        return
    with pytest.raises(UsageError, match="is a backup of another database: ") as refused:
        verify_may_change_hands(backup)
    assert refused.value.next_step.startswith("make restore-from-backup BACKUP='")


def test_file_without_a_manifest_may_change_hands(folder: Path) -> None:
    verify_may_change_hands(replace(of_another(folder, Path("/x.db"), "id"), manifest=None))


@pytest.mark.parametrize(
    ("in_file", "current", "chosen"),
    [
        ("", "b", "current"),
        ("b", "b", "current"),
        ("b", "", "current"),
        ("", "", "current"),
        ("c", "b", "known"),
        ("x", "b", "new"),
    ],
)
def test_file_belongs_to_the_database_in_use_unless_it_holds_anothers_id(
    folder: Path, in_file: str, current: str, chosen: str
) -> None:
    path = make(folder / NAME, database_id=in_file)
    in_use = Identity(current, "/live.db")
    catalogue = [
        write_backup_file(folder, f"backtesting-2026-11-2{day}-020000", Path(f"/{id_}.db"), id_)
        for day, id_ in ((1, "a"), (3, "d"), (2, "c"))
    ]
    found = whose(path, in_use, catalogue)
    if chosen == "current":
        assert found == in_use
    elif chosen == "known":
        assert found == Identity("c", "/c.db")
    else:
        assert found == Identity("x", str(path))
