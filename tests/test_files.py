"""Locks between real processes, names that are final only when the content is, room on the disk."""

import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from backtestdb.errors import BusyError, SpaceError
from backtestdb.files import (
    append_line,
    exclusive_lock,
    free_bytes,
    make_stamp,
    remove_database,
    rename_durably,
    same_file,
    verify_space,
    write_atomically,
)
from holder import running_holder

HOLDER = """
import sys
from pathlib import Path
from backtestdb.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "the other backup"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_of_another_process_is_refused_with_its_number(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with running_holder(HOLDER, lock) as holder:
        with pytest.raises(BusyError) as caught, exclusive_lock(lock, "a backup"):
            pass
        assert (
            str(caught.value) == f"a backup is already running (process {holder.pid}, lock {lock})"
        )


@pytest.mark.parametrize(
    "end", [signal.SIGKILL, signal.SIGTERM, None], ids=["kill -9", "kill", "end of work"]
)
def test_lock_is_free_when_its_holder_is_gone(tmp_path: Path, end: signal.Signals | None) -> None:
    lock = tmp_path / "lock"
    with running_holder(HOLDER, lock) as holder:
        if end:
            holder.send_signal(end)
        else:
            holder.communicate()
        holder.wait()
        with exclusive_lock(lock, "a backup"):
            assert lock.read_text() == f"{os.getpid()}\n"


def test_lock_is_free_after_an_error_inside_and_its_file_stays(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(ValueError, match="inside"), exclusive_lock(lock, "a backup"):
        raise ValueError("inside")
    assert lock.exists()
    with running_holder(HOLDER, lock):
        pass


def test_lock_is_held_against_the_same_process_too(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        exclusive_lock(lock, "one"),
        pytest.raises(BusyError, match=f"two is already running \\(process {os.getpid()}"),
        exclusive_lock(lock, "two"),
    ):
        pass


def test_lock_is_not_inherited_by_programs_that_the_holder_starts(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with exclusive_lock(lock, "one"):
        child = subprocess.Popen(
            [sys.executable, "-c", "print('up', flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
    try:
        with exclusive_lock(lock, "two"):
            pass
    finally:
        child.kill()
        child.communicate()


def test_rename_replaces_the_target_and_flushes_the_file_before_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "new.arriving", tmp_path / "kept"
    source.write_text("new")
    target.write_text("old")
    flushed: list[tuple[int, str]] = []
    flush = os.fsync

    def note_flush(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, target.read_text()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", note_flush)
    rename_durably(source, target)
    assert flushed == [(target.stat().st_ino, "old"), (tmp_path.stat().st_ino, "new")]
    assert not source.exists()


def test_text_written_atomically_is_the_users_alone_and_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text("an older and longer text\n")
    write_atomically(path, "new\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new\n", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_cannot_be_put_in_its_place_leaves_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "facts.json"
    place.mkdir()
    with pytest.raises(OSError, match="facts"):
        write_atomically(place, "new\n")
    assert list(tmp_path.iterdir()) == [place]


def test_history_keeps_its_newest_lines(tmp_path: Path) -> None:
    for number in range(5):
        append_line(tmp_path / "history", f"line {number}", keep=3)
    assert (tmp_path / "history").read_text() == "line 2\nline 3\nline 4\n"


def test_rename_of_a_missing_file_leaves_the_target(tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.write_text("old")
    with pytest.raises(FileNotFoundError):
        rename_durably(tmp_path / "missing", target)
    assert target.read_text() == "old"


def test_removing_a_database_takes_its_companions_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "a.db",
        "a.db-wal",
        "a.db-shm",
        "a.db-journal",
        "a.db.backup-2026",
        "b.db",
        "a.db-other",
    ):
        (tmp_path / name).touch()
    remove_database(tmp_path / "a.db")
    remove_database(tmp_path / "a.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.db-other",
        "a.db.backup-2026",
        "b.db",
    ]


def test_same_file_sees_through_links_and_not_through_names(tmp_path: Path) -> None:
    one, copy, link, hard = (tmp_path / name for name in ("one", "copy", "link", "hard"))
    one.write_text("x")
    copy.write_text("x")
    link.symlink_to(one)
    hard.hardlink_to(one)
    assert same_file(one, link)
    assert same_file(one, hard)
    assert not same_file(one, copy)
    assert not same_file(one, tmp_path / "missing")
    assert not same_file(tmp_path / "missing", tmp_path / "missing")


def test_free_space_of_a_folder_that_is_yet_to_be_made_is_that_of_its_parent(
    tmp_path: Path,
) -> None:
    status = os.statvfs(tmp_path)
    assert abs(free_bytes(tmp_path / "not" / "yet") - status.f_bavail * status.f_frsize) < 1e9


def test_space_that_is_there_passes_and_space_that_is_not_is_told_in_bytes(tmp_path: Path) -> None:
    verify_space(tmp_path, 1, "a backup")
    needed = 1 << 60
    with pytest.raises(
        SpaceError, match=rf"a backup needs {needed:,} bytes in {tmp_path}; .* are missing"
    ):
        verify_space(tmp_path, needed, "a backup")
    assert list(tmp_path.iterdir()) == []


def test_stamp_sorts_as_time_does() -> None:
    assert make_stamp(datetime(2026, 1, 2, 3, 4, 5)) == "2026-01-02-030405"  # noqa: DTZ001
