"""What a name, a manifest and the files beside it say about a backup: without any database."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.backups import catalogue
from backtestdb.backups.catalogue import (
    Backup,
    choose_name,
    choose_taken_at,
    guess_taken_at,
    holds_something,
    is_backup_name,
    is_foreign,
    load_catalogue,
    lock_backups,
    look_at_backup,
    newest_first,
    partial,
    verified,
)
from backtestdb.backups.manifest import Kind, Loss, write_manifest
from backtestdb.errors import BusyError
from manifests import FIRST_TAKEN_AT_UTC, make_backups, make_manifest

STEM = "backtesting-2026-11-23-020000"
LATER = FIRST_TAKEN_AT_UTC + timedelta(hours=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write_backup(
    folder: Path, stem: str = STEM, *, kind: Kind = "full", taken_at_utc: datetime = LATER
) -> Path:
    """A database file of one byte with a manifest that is true to it; return its path."""
    path = folder / f"{stem}.db"
    path.write_bytes(b"x")
    write_manifest(make_manifest(path, kind, taken_at_utc, {}), path.with_suffix(".json"))
    return path


def test_backup_with_its_manifest_is_what_that_says_confirmed_when_that_was_written(
    folder: Path,
) -> None:
    path = write_backup(folder)
    os.utime(path.with_suffix(".json"), (1_800_000_000, 1_800_000_000))
    backup = look_at_backup(path)
    assert backup.problem == ""
    assert backup.is_verified
    assert backup.counts
    assert not backup.is_suspicious
    assert (backup.path, backup.kind, backup.bytes) == (path, "full", 1)
    assert backup.taken_at_utc == LATER
    assert backup.confirmed_at_utc == datetime.fromtimestamp(1_800_000_000, UTC)
    assert backup.manifest_path == folder / f"{STEM}.json"
    assert backup.scripts_path == folder / "claude-scripts-2026-11-23-020000"


def test_backup_of_another_database_is_verified_and_does_not_count(folder: Path) -> None:
    backup = replace(look_at_backup(write_backup(folder)), other_database="/other.db")
    assert backup.is_verified
    assert not backup.counts


def test_backup_is_suspicious_by_its_manifest_alone(folder: Path) -> None:
    loss = {"agents": Loss(before=40, before_at_utc=LATER, now=0)}
    lost, kept = make_backups(folder, ("full", {}, {}), ("full", {}, {"losses": loss}))
    assert lost.is_suspicious
    assert not kept.is_suspicious
    assert not replace(lost, manifest=None).is_suspicious


@pytest.mark.parametrize("stem", [STEM, "irreplaceable-2026-11-23-020000"])
def test_backup_of_the_other_kind_than_its_name_is_none(folder: Path, stem: str) -> None:
    kind: Kind = "irreplaceable" if stem == STEM else "full"
    backup = look_at_backup(write_backup(folder, stem, kind=kind))
    assert not backup.is_verified
    assert backup.problem == f"the manifest is for a backup of kind {kind}"
    assert backup.kind != kind
    assert backup.taken_at_utc == guess_taken_at(backup.path)
    assert not is_foreign(backup), "it was said to be a backup"


def test_file_without_a_manifest_is_foreign(folder: Path) -> None:
    path = write_backup(folder)
    path.with_suffix(".json").unlink()
    backup = look_at_backup(path)
    assert backup.problem == "no manifest"
    assert is_foreign(backup)
    assert backup.bytes == 1
    assert not is_foreign(replace(backup, manifest=make_manifest(path, "full", LATER, {})))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (f"{STEM}.db", b"", "the file has 0 bytes instead of 1"),
        (f"{STEM}.db", b"xy", "the file has 2 bytes instead of 1"),
        (f"{STEM}.db-wal", b"w", "a -wal stands beside it: another program opened it"),
        (f"{STEM}.db-journal", b"j", "a -journal stands beside it: another program opened it"),
        (f"{STEM}.db-journal", b"", ""),
        (f"{STEM}.failed-drill", b"no room", "a drill could not restore it: no room"),
    ],
)
def test_problem_of_a_backup_is_seen_without_reading_it(
    folder: Path, name: str, content: bytes, problem: str
) -> None:
    path = write_backup(folder)
    (folder / name).write_bytes(content)
    assert look_at_backup(path).problem == problem


def test_manifest_whose_database_is_gone_is_listed_with_that(folder: Path) -> None:
    write_backup(folder).unlink()
    [backup] = load_catalogue(folder)
    assert backup.problem == "the database file is missing"
    assert backup.bytes == 0


def test_link_or_folder_beside_a_backup_is_something(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")
    (folder / "folder").mkdir()
    assert holds_something(folder / "link")
    assert holds_something(folder / "folder")
    assert not holds_something(folder / "nothing")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (f"{STEM}.db", True),
        (f"{STEM}.json", True),
        ("irreplaceable-2026-11-23-020000.json", True),
        (f"{STEM}.db-wal", False),
        (f"{STEM}.txt", False),
        (f"{STEM}-2.db", False),
        (f"old-{STEM}.db", False),
    ],
)
def test_name_of_a_backup_is_the_whole_name(name: str, is_one: bool) -> None:
    assert is_backup_name(Path("/backups") / name) == is_one


def test_catalogue_of_no_folder_is_empty(folder: Path) -> None:
    assert load_catalogue(folder / "missing") == []


def test_catalogue_is_newest_first_then_by_name(folder: Path) -> None:
    older = write_backup(folder, taken_at_utc=LATER - timedelta(hours=1))
    first = write_backup(folder, "backtesting-2020-01-01-000000")
    second = write_backup(folder, "backtesting-2020-01-01-000001")
    assert [backup.path for backup in load_catalogue(folder)] == [second, first, older]


def test_time_of_a_foreign_file_is_that_of_its_name_or_else_of_its_change(folder: Path) -> None:
    named = datetime(2026, 11, 23, 2).astimezone(UTC)
    assert guess_taken_at(folder / f"{STEM}.db") == named
    for name in ("backtesting-9999-99-99-999999.db", "notes.db"):
        path = folder / name
        assert guess_taken_at(path) == datetime.fromtimestamp(0, UTC)
        path.write_bytes(b"x")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        assert guess_taken_at(path) == datetime.fromtimestamp(1_700_000_000, UTC)


def test_verified_are_those_of_one_kind_that_count_newest_first(folder: Path) -> None:
    small = ("irreplaceable", {}, {})
    newest, other, bad, full, oldest = make_backups(folder, small, ("full", {}, {}), *[small] * 3)
    catalogue = [oldest, newest, full, replace(bad, problem="bad")]
    catalogue.append(replace(other, other_database="/other.db"))
    assert verified(catalogue, "irreplaceable") == [newest, oldest]
    assert verified(catalogue, "full") == [full]
    assert newest_first([oldest, newest]) == [newest, oldest]


@pytest.mark.parametrize("taken", ["{}.db", "{}.json", "claude-scripts-{}"])
def test_name_is_free_of_a_database_a_manifest_and_scripts(folder: Path, taken: str) -> None:
    now = datetime(2026, 11, 23, 2).astimezone()
    stamp = "2026-11-23-020000"
    (folder / taken.format(stamp if "scripts" in taken else STEM)).touch()
    assert choose_name(folder, "full", now).name == "backtesting-2026-11-23-020001.db"
    assert choose_name(folder, "irreplaceable", now).name == f"irreplaceable-{stamp}.db"


def test_time_taken_is_now_or_just_after_the_newest_that_is_verified(folder: Path) -> None:
    [newest] = make_backups(folder, ("full", {}, {}))
    step = timedelta(milliseconds=1)

    def taken_after(backups: list[Backup], ahead: timedelta) -> timedelta:
        return choose_taken_at(backups, newest.taken_at_utc + ahead) - newest.taken_at_utc

    assert taken_after([newest], step) == step
    assert taken_after([newest], timedelta(0)) == step
    assert taken_after([newest], -timedelta(hours=1)) == step
    assert taken_after([], -timedelta(hours=1)) == -timedelta(hours=1)
    assert taken_after([replace(newest, problem="bad")], -step) == -step


def test_lock_of_the_folder_says_what_holds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "WAIT_FOR_LOCK_SECONDS", 0.0)
    text = f"a backup or restore in {folder} is already running .*{os.getpid()}"
    with lock_backups(folder), pytest.raises(BusyError, match=text), lock_backups(folder):
        pass


def test_partial_name_stands_beside_its_own(folder: Path) -> None:
    assert partial(folder / f"{STEM}.db") == folder / f"{STEM}.db.partial"
