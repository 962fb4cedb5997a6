"""Locks between real processes, names that are final only when the content is, room on the disk."""

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from backtestdb import files
from backtestdb.errors import BusyError, SpaceError
from backtestdb.files import (
    append_line,
    choose_free_names,
    exclusive_lock,
    flush_descriptor,
    forget_cached,
    free_bytes,
    fsync_file,
    hash_file,
    is_locked,
    make_stamp,
    remove_database,
    remove_tree,
    rename_durably,
    same_file,
    staging_path,
    verify_space,
    write_atomically,
)
from holder import running_holder
from small_disk import leave_free

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


def test_lock_is_the_users_alone_and_names_its_holder_whatever_stood_in_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for left in (None, "123456789012345\n"):
        if left:
            lock.write_text(left)
        with exclusive_lock(lock, "a backup"):
            assert lock.read_text() == f"{os.getpid()}\n"
    assert lock.stat().st_mode & 0o777 == 0o600


def test_lock_on_a_full_disk_holds_and_names_no_holder_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    lock = tmp_path / "lock"
    lock.write_text("123\n")
    monkeypatch.setattr(os, "pwrite", refuse)
    with (
        exclusive_lock(lock, "one"),
        pytest.raises(BusyError, match=r"two is already running \(process unknown"),
        exclusive_lock(lock, "two"),
    ):
        pass


# An eighth of a second is a number that floats hold exactly.
@pytest.mark.parametrize(("wait_seconds", "pauses"), [(None, 1), (0.5, 5)])
def test_lock_is_asked_for_again_until_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_seconds: float | None, pauses: int
) -> None:
    lock, slept = tmp_path / "lock", []
    how = {} if wait_seconds is None else {"wait_seconds": wait_seconds}
    with exclusive_lock(lock, "one"):
        clock = iter([0.0, *(eighth / 8 for eighth in range(12))])
        stopwatch = SimpleNamespace(monotonic=lambda: next(clock), sleep=slept.append)
        monkeypatch.setattr(files, "time", stopwatch)
        with pytest.raises(BusyError) as caught, exclusive_lock(lock, "two", **how):
            pass
    assert slept == [0.1] * pauses
    assert caught.value.next_step == "wait for it to end"


def test_lock_that_is_let_go_meanwhile_is_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    with running_holder(HOLDER, lock) as holder:

        def let_go(_seconds: float) -> None:
            holder.kill()
            holder.wait()

        stopwatch = SimpleNamespace(monotonic=lambda: 0.0, sleep=let_go)
        monkeypatch.setattr(files, "time", stopwatch)
        with exclusive_lock(lock, "a backup", wait_seconds=1):
            assert lock.read_text() == f"{os.getpid()}\n"


def test_looking_at_a_lock_tells_whether_it_is_held_and_does_not_take_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert is_locked(lock) is False
    assert not lock.exists()
    with exclusive_lock(lock, "a backup"):
        assert is_locked(lock) is True
    assert [is_locked(lock), is_locked(lock)] == [False, False]


@pytest.mark.parametrize("look", [fsync_file, forget_cached, is_locked, hash_file])
def test_file_that_was_looked_at_is_closed(tmp_path: Path, look: Callable[[Path], object]) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    before = sorted(Path("/dev/fd").iterdir())
    look(path)
    assert sorted(Path("/dev/fd").iterdir()) == before


def test_flush_asks_a_mac_for_the_platter_and_others_for_what_they_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def refuse(_descriptor: int, command: int) -> None:
        asked.append(command)
        raise OSError(errno.ENOTSUP, "a network drive")

    monkeypatch.setattr(os, "fsync", lambda _descriptor: asked.append("fsync"))
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    flush_descriptor(7)
    assert asked == ["fsync"]
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _descriptor, command: asked.append(command))
    flush_descriptor(7)
    assert asked == ["fsync", 51]
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    flush_descriptor(7)
    assert asked == ["fsync", 51, 51, "fsync"]


def test_cache_is_asked_to_forget_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    path = tmp_path / "file"
    path.write_text("x")

    def note(descriptor: int, *how: int) -> None:
        asked.append((os.fstat(descriptor).st_ino, *how))

    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    monkeypatch.setattr(os, "posix_fadvise", note, raising=False)
    forget_cached(path)
    assert asked == [(path.stat().st_ino, 0, 0, 4)]  # a length of 0: to the end
    monkeypatch.delattr(os, "posix_fadvise")
    forget_cached(path)
    assert len(asked) == 1


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


@pytest.mark.parametrize("durably", [True, False, None])
def test_text_is_flushed_unless_it_is_written_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durably: bool | None
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(files, "flush_descriptor", flushed.append)
    how = {} if durably is None else {"durably": durably}
    write_atomically(tmp_path / "facts.json", "new\n", **how)
    assert (tmp_path / "facts.json").read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "facts.json"]
    assert len(flushed) == (0 if durably is False else 2)


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


def test_staged_sessions_stand_beside_their_database() -> None:
    assert staging_path(Path("/live/a.db")) == Path("/live/a.db.staging")


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


@pytest.mark.parametrize(("free", "missing"), [(101, 0), (100, 0), (99, 1), (0, 100)])
def test_space_is_enough_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, missing: int
) -> None:
    leave_free(monkeypatch, free)
    if not missing:
        verify_space(tmp_path, 100, "a backup")
        return
    with pytest.raises(SpaceError, match=f"{free} are free, {missing} are missing") as caught:
        verify_space(tmp_path, 100, "a backup")
    assert caught.value.missing_bytes == missing
    assert caught.value.next_step


def test_name_that_is_taken_even_by_a_link_to_nowhere_is_left_for_the_next_second(
    tmp_path: Path,
) -> None:
    start = datetime(2026, 11, 1, 1, 59, 59)  # noqa: DTZ001
    asked: list[str] = []

    def names(stamp: str) -> list[Path]:
        asked.append(stamp)
        assert len(asked) < 9, "the same name for ever"
        return [tmp_path / f"{stamp}.db", tmp_path / f"{stamp}.json"]

    (tmp_path / "2026-11-01-015959.db").touch()
    (tmp_path / "2026-11-01-020000.json").symlink_to(tmp_path / "nowhere")
    free = [tmp_path / "2026-11-01-020001.db", tmp_path / "2026-11-01-020001.json"]
    assert choose_free_names(names, start) == free
    assert asked == [make_stamp(start + timedelta(seconds=n)) for n in range(3)]


def test_hash_is_of_all_bytes_however_many(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for size in (0, 1, files.HASH_CHUNK_BYTES, files.HASH_CHUNK_BYTES + 1):
        path.write_bytes(b"x" * size)
        assert hash_file(path) == hashlib.sha256(b"x" * size).hexdigest()


def test_tree_is_removed_whole_and_what_its_links_lead_to_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, tree = tmp_path / "other", tmp_path / "tree"
    (tree / "inner" / "locked").mkdir(parents=True)
    other.mkdir()
    for path in (other / "kept", tree / "file", tree / "inner" / "locked" / "file"):
        path.write_text("x")
    (tree / "link to a folder").symlink_to(other)
    (tree / "link to a file").symlink_to(other / "kept")
    (tree / "link to nowhere").symlink_to(tmp_path / "nowhere")
    (tree / "inner" / "locked").chmod(0)
    modes: list[int] = []
    scan = os.scandir

    def look(path: Path) -> "Iterator[os.DirEntry[str]]":
        modes.append(path.stat().st_mode & 0o777)
        return scan(path)

    with monkeypatch.context() as patch:  # Path.iterdir of Python 3.13 asks it too
        patch.setattr(files.os, "scandir", look)
        remove_tree(tree)
    assert modes == [0o700] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert (other / "kept").read_text() == "x"


def test_tree_that_is_a_file_a_link_or_missing_is_removed_as_what_it_is(tmp_path: Path) -> None:
    file, link, folder = (tmp_path / name for name in ("file", "link", "folder"))
    file.write_text("x")
    folder.mkdir()
    (folder / "kept").write_text("x")
    link.symlink_to(folder)
    for path in (file, link, tmp_path / "missing"):
        remove_tree(path)
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "kept").exists()


def test_tree_from_which_another_program_takes_a_file_is_removed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one").write_text("x")
    (tree / "two").write_text("x")
    scan = os.scandir

    def take_one(path: Path) -> "list[os.DirEntry[str]]":
        entries = list(scan(path))
        (tree / "one").unlink()
        return entries

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "scandir", take_one)
        remove_tree(tree)
    assert not tree.exists()
