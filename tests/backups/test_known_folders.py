"""Which folders took backups of a database: remembered beside it, marked in the folder."""

import json
import os
from pathlib import Path

import pytest

from backtestdb.backups.known_folders import (
    MARK_NAME,
    KnownFolder,
    ensure_mark,
    find_absent_disk,
    find_mount_point,
    load_known_folders,
    memory_path,
    read_mark,
    remember_folder,
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "live.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


def test_folder_that_took_a_backup_is_known_by_its_mark_and_mount_point(
    database: Path, folder: Path
) -> None:
    before = os.umask(0)
    try:
        remember_folder(database, folder)
    finally:
        os.umask(before)
    memory = database.with_name("live.db.disks.json")
    assert memory_path(database) == memory
    assert memory.stat().st_mode & 0o777 == 0o666
    mark = (folder / MARK_NAME).read_text().strip()
    assert len(mark) == 32
    known = KnownFolder(str(find_mount_point(folder)), (mark,))
    assert load_known_folders(database) == {str(folder): known}
    assert find_absent_disk(folder, database) == ""


def test_folder_that_is_known_already_is_not_written_again(database: Path, folder: Path) -> None:
    remember_folder(database, folder)
    inode = memory_path(database).stat().st_ino
    remember_folder(database, folder)
    assert memory_path(database).stat().st_ino == inode


def test_disks_that_take_turns_are_both_known(database: Path, folder: Path, tmp_path: Path) -> None:
    for mark in ("first", "second"):
        (folder / MARK_NAME).write_text(f"{mark}\n")
        remember_folder(database, folder)
    other = tmp_path / "other"
    other.mkdir()
    remember_folder(database, other)
    known = load_known_folders(database)
    assert known[str(folder)].marks == ("first", "second")
    assert set(known) == {str(folder), str(other)}
    (folder / MARK_NAME).write_text("first\n")
    assert find_absent_disk(folder, database) == ""


def test_folder_without_its_mark_is_another_one(database: Path, folder: Path) -> None:
    assert find_absent_disk(folder, database) == ""
    remember_folder(database, folder)
    (folder / MARK_NAME).write_text("of another disk\n")
    assert find_absent_disk(folder, database) == f"its mark {MARK_NAME} is missing, or another one"
    (folder / MARK_NAME).unlink()
    assert find_absent_disk(folder, database) == f"its mark {MARK_NAME} is missing, or another one"


def test_folder_under_another_name_may_have_any_mark_that_is_known(
    database: Path, folder: Path
) -> None:
    """In a container the same folder has another name."""
    memory_path(database).write_text(
        json.dumps(
            {
                str(folder): {"mount_point": "/", "marks": ["one"]},
                "/backups": {"mount_point": "/", "marks": ["other"]},
            }
        )
    )
    (folder / MARK_NAME).write_text("other\n")
    assert find_absent_disk(folder, database) == ""


def test_disk_that_is_not_mounted_any_more_is_absent(database: Path, folder: Path) -> None:
    text = json.dumps({str(folder): {"mount_point": str(folder), "marks": []}})
    memory_path(database).write_text(text)
    assert find_absent_disk(folder, database) == f"nothing is mounted at {folder}"
    memory_path(database).write_text(json.dumps({str(folder): "/"}))  # before there were marks
    assert find_absent_disk(folder, database) == ""


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (None, {}),
        ("{", {}),
        ("[]", {}),
        ('{"/b": "/disk"}', {"/b": KnownFolder("/disk")}),
        ('{"/b": {}}', {"/b": KnownFolder("/")}),
        ('{"/b": {"mount_point": "/d", "marks": 1}}', {"/b": KnownFolder("/d")}),
        ('{"/b": {"mount_point": "/d", "marks": [1, "x"]}}', {"/b": KnownFolder("/d", ("1", "x"))}),
    ],
)
def test_memory_of_any_release_is_read_as_far_as_it_can_be(
    database: Path, text: str | None, known: dict[str, KnownFolder]
) -> None:
    if text is not None:
        memory_path(database).write_text(text)
    assert load_known_folders(database) == known


def test_mark_stays_the_same_and_one_that_cannot_be_read_is_made_anew(folder: Path) -> None:
    assert read_mark(folder) == ""
    mark = ensure_mark(folder)
    assert ensure_mark(folder) == mark == read_mark(folder)
    (folder / MARK_NAME).write_bytes(b"\xff\xff")
    assert read_mark(folder) == ""
    assert ensure_mark(folder) not in {"", mark}


def test_mount_point_is_the_nearest_folder_with_a_disk(tmp_path: Path) -> None:
    found = find_mount_point(tmp_path / "not" / "there")
    assert found.is_mount()
    assert tmp_path.is_relative_to(found)
