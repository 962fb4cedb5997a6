"""What the next backup finds of a run that was killed: finished, removed, or left to its owner."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups import leftovers as leftovers_module
from backtestdb.backups.catalogue import EXPIRED, Backup, look_at_backup
from backtestdb.backups.leftovers import clean_leftovers
from backtestdb.backups.manifest import GeneratedScripts
from backtestdb.files import exclusive_lock
from manifests import ONE_SCRIPT, make_exact_manifest, name_backup, write_one_script

STEM = "backtesting-2026-11-23-020000"
SCRIPTS_NAME = ONE_SCRIPT.folder


def make_backup(folder: Path, *, scripts: GeneratedScripts | None = None) -> Backup:
    """A whole backup, with the folder of its scripts."""
    path = folder / f"{STEM}.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE lab (name TEXT)")
    if scripts:
        write_one_script(folder / SCRIPTS_NAME)
    return name_backup(make_exact_manifest(path, generated_scripts=scripts), path)


def kill_before_its_name(backup: Backup) -> None:
    """The last step of a backup was not done: its manifest waits under another name."""
    backup.manifest_path.rename(f"{backup.manifest_path}.partial")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("scripts", [None, ONE_SCRIPT])
def test_backup_that_lacks_only_the_name_of_its_manifest_is_completed_flushed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: GeneratedScripts | None
) -> None:
    flushed: list[set[str]] = []
    monkeypatch.setattr(
        leftovers_module, "fsync_directory", lambda folder: flushed.append(names_in(folder))
    )
    kill_before_its_name(make_backup(tmp_path, scripts=scripts))
    assert clean_leftovers(tmp_path) == [
        f"completed {STEM}.db, which a killed run had finished but for its name"
    ]
    there = {f"{STEM}.db", f"{STEM}.json"} | ({SCRIPTS_NAME} if scripts else set())
    assert names_in(tmp_path) == there
    assert flushed == [there]
    assert look_at_backup(tmp_path / f"{STEM}.db").is_verified
    assert clean_leftovers(tmp_path) == []


@pytest.mark.parametrize("way", ["database", "scripts"])
def test_what_is_not_what_the_waiting_manifest_says_is_no_backup(tmp_path: Path, way: str) -> None:
    backup = make_backup(tmp_path, scripts=ONE_SCRIPT)
    kill_before_its_name(backup)
    damaged = backup.path if way == "database" else tmp_path / SCRIPTS_NAME / "one.py"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\7")
    assert clean_leftovers(tmp_path) == []
    assert names_in(tmp_path) == {f"{STEM}.db", SCRIPTS_NAME}


def test_manifest_that_was_not_written_to_its_end_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{STEM}.json.partial").write_text('{"format": 2, ')
    (tmp_path / f"{STEM}.db.partial").write_bytes(b"x")
    assert clean_leftovers(tmp_path) == []
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("has_scripts", [True, False])
def test_scripts_of_a_backup_whose_database_got_no_name_are_removed_and_no_others(
    tmp_path: Path, has_scripts: bool
) -> None:
    backup = make_backup(tmp_path, scripts=ONE_SCRIPT if has_scripts else None)
    kill_before_its_name(backup)
    backup.path.rename(f"{backup.path}.partial")
    (tmp_path / SCRIPTS_NAME).mkdir(exist_ok=True)
    assert clean_leftovers(tmp_path) == []
    assert names_in(tmp_path) == (set() if has_scripts else {SCRIPTS_NAME})


def test_partial_files_of_ours_are_removed_and_those_of_others_are_not(tmp_path: Path) -> None:
    ours = [
        f"{STEM}.db.partial",
        f"{STEM}.db.partial-journal",
        f"{STEM}.db.partial.source.partial",
        "irreplaceable-2026-11-23-020000.db.partial-wal",
    ]
    others = [f"{STEM}.db.partial.txt", "notes.db.partial", "old.json.partial"]
    for name in (*ours, *others):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f"{SCRIPTS_NAME}.partial").mkdir()
    (tmp_path / f"{SCRIPTS_NAME}.partial" / "one.py").touch()
    assert clean_leftovers(tmp_path) == []
    assert names_in(tmp_path) == set(others)


def test_removal_that_was_begun_is_ended(tmp_path: Path) -> None:
    backup = make_backup(tmp_path, scripts=ONE_SCRIPT)
    backup.manifest_path.rename(backup.manifest_path.with_suffix(EXPIRED))
    assert clean_leftovers(tmp_path) == []
    assert names_in(tmp_path) == set()


def test_what_a_killed_drill_had_restored_is_removed_and_a_running_one_is_left(
    tmp_path: Path,
) -> None:
    scratch = tmp_path / "drills" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "backtesting.db").touch()
    with exclusive_lock(tmp_path / "drills" / ".lock", "a drill"):
        clean_leftovers(tmp_path)
        assert scratch.exists()
    clean_leftovers(tmp_path)
    assert names_in(tmp_path / "drills") == {".lock"}
