"""The folder that backups go to, and what stands in its place when its disk is not there."""

import os
from pathlib import Path

import pytest

from backtestdb.backups import backup_dir as backup_dir_module
from backtestdb.backups.backup_dir import (
    CONNECT_DISK,
    AbsentDiskError,
    drill_folder,
    ensure_backup_dir,
    find_missing_disk,
    find_reason_to_keep_off,
    verify_disk_of_database,
    verify_source_is_no_backup,
)
from backtestdb.backups.known_folders import MARK_NAME, remember_folder
from backtestdb.errors import DatabaseFileError, ProjectError

BACKUP = "backtesting-2026-11-23-020000.db"


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the system mounts disks: none is mounted, all lies on the system's own."""
    monkeypatch.setattr(backup_dir_module, "MOUNT_ROOTS", (tmp_path / "media", tmp_path / "run"))
    monkeypatch.setattr(backup_dir_module, "find_mount_point", lambda _path: Path("/"))
    return tmp_path / "media"


def mount(monkeypatch: pytest.MonkeyPatch, disk: Path) -> None:
    monkeypatch.setattr(backup_dir_module, "find_mount_point", lambda _path: disk)


def test_folder_is_made_for_its_owner_alone_and_taken_as_it_is_when_it_is_there(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a" / "backups"
    before = os.umask(0)
    try:
        ensure_backup_dir(folder, tmp_path / "live.db")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    ensure_backup_dir(folder, tmp_path / "live.db")


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "backups").write_text("a file")
    with pytest.raises(ProjectError, match=r"BACKUP_DIR .*backups is a file"):
        ensure_backup_dir(tmp_path / "backups", tmp_path / "live.db")


def test_folder_of_another_disk_is_kept_off(tmp_path: Path) -> None:
    folder, database = tmp_path / "backups", tmp_path / "live.db"
    folder.mkdir()
    remember_folder(database, folder)
    (folder / MARK_NAME).unlink()
    with pytest.raises(AbsentDiskError) as refused:
        ensure_backup_dir(folder, database)
    reason = f"its mark {MARK_NAME} is missing, or another one"
    assert str(refused.value).startswith(f"the disk of BACKUP_DIR {folder} is not there: {reason}")
    assert refused.value.next_step == CONNECT_DISK


def test_folder_is_not_made_where_disks_are_mounted_and_none_is(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, database = media / "stick" / "backups", tmp_path / "live.db"
    assert find_reason_to_keep_off(folder, database) == f"nothing is mounted at {media / 'stick'}"
    assert find_reason_to_keep_off(tmp_path / "elsewhere", database) == ""
    mount(monkeypatch, media / "stick")
    assert find_reason_to_keep_off(folder, database) == ""
    mount(monkeypatch, Path("/"))
    folder.mkdir(parents=True)
    assert find_reason_to_keep_off(folder, database) == ""


def test_missing_disk_of_a_file_is_the_folder_at_which_it_is_mounted(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media / "stick" / "a" / "live.db"
    assert find_missing_disk(path) == media / "stick"
    assert find_missing_disk(media / "live.db") is None, "no disk has its files there"
    assert find_missing_disk(tmp_path / "live.db") is None
    monkeypatch.setattr(backup_dir_module, "MOUNT_ROOTS", (media / "stick", media))
    assert find_missing_disk(path) == media / "stick" / "a", "the deeper of two"
    mount(monkeypatch, media / "stick")
    assert find_missing_disk(path) is None
    mount(monkeypatch, Path("/"))
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_missing_disk(path) is None


def test_database_is_not_made_where_its_disk_is_missing(media: Path, tmp_path: Path) -> None:
    with pytest.raises(DatabaseFileError, match=f"nothing is mounted at {media / 'stick'}"):
        verify_disk_of_database(media / "stick" / "live.db")
    verify_disk_of_database(tmp_path / "live.db")


# ── the source


@pytest.mark.parametrize("way", ["itself", "symbolic link", "hard link"])
def test_backup_in_the_place_of_the_database_is_refused(tmp_path: Path, way: str) -> None:
    backup, database = tmp_path / BACKUP, tmp_path / "elsewhere" / "live.db"
    backup.write_bytes(b"x")
    database.parent.mkdir()
    if way == "symbolic link":
        database.symlink_to(backup)
    elif way == "hard link":
        database.hardlink_to(backup)
    else:
        database = backup
    with pytest.raises(ProjectError, match="is one of the backups in"):
        verify_source_is_no_backup(database, tmp_path)


@pytest.mark.parametrize("name", ["a/live.db", "backups/live.db", f"a/{BACKUP}", f"z/{BACKUP}"])
def test_database_beside_backups_or_named_like_one_is_none(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "backups"
    for path in (folder, tmp_path / "a", tmp_path / "z"):
        path.mkdir()
    (folder / BACKUP).write_bytes(b"x")
    database = tmp_path / name
    database.write_bytes(b"x")
    # Files that are no backups, though they lead to the database.
    (folder / "notes.db").symlink_to(database)
    (folder / BACKUP.replace(".db", ".json")).hardlink_to(database)
    verify_source_is_no_backup(database, folder)


def test_reports_of_drills_have_a_folder_of_their_own(tmp_path: Path) -> None:
    assert drill_folder(tmp_path) == tmp_path / "drills"
