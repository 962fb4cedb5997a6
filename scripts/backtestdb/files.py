"""Files that must survive a power cut: names with a time, flushing, free space, locks."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from backtestdb.errors import BusyError, SpaceError
from backtestdb.names import ARRIVING

HASH_CHUNK_BYTES = 1 << 20

DATABASE_COMPANIONS = ("-wal", "-shm", "-journal")


def make_stamp(now_local: datetime) -> str:
    """Return YYYY-MM-DD-HHmmss in local time: the middle of every backup's name."""
    return now_local.strftime("%Y-%m-%d-%H%M%S")


def choose_free_names(name_with: Callable[[str], list[Path]], now_local: datetime) -> list[Path]:
    """Return the first names from now on that nothing has. Two runs in a second, a clock that was
    set back and the hour that comes twice in autumn all ask for a name again. `name_with` makes the
    names from a stamp."""
    while True:
        paths = name_with(make_stamp(now_local))
        if not any(os.path.lexists(path) for path in paths):
            return paths
        now_local += timedelta(seconds=1)


def fsync_file(path: Path) -> None:
    """Flush a file to the disk. Never for a database that this process has open: closing the
    descriptor drops SQLite's locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flush_descriptor(descriptor)
    finally:
        os.close(descriptor)


fsync_directory = fsync_file


def flush_descriptor(descriptor: int) -> None:
    """Flush an open file to the platter."""
    # On macOS fsync ends when the drive has the data, F_FULLFSYNC waits for more (man 2 fsync). A
    # network drive may not know it.
    if hasattr(fcntl, "F_FULLFSYNC"):
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:
            pass
    os.fsync(descriptor)


def forget_cached(path: Path) -> None:
    """Let the next read of a flushed file come from the disk. Without this, 8 of the 204,456 blocks
    of a fresh backup did; the others were checked in the memory that they had been written from.
    macOS has no such call."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def rename_durably(source: Path, target: Path) -> None:
    """Flush `source`, give it its final name in one step, and flush the folder of the name."""
    fsync_file(source)
    source.replace(target)
    fsync_directory(target.parent)


def write_atomically(path: Path, text: str, *, mode: int = 0o600, durably: bool = True) -> None:
    """Given the whole new text of a small file, put it in its place in one step: readers and a kill
    see the old text or the new one. `durably=False` leaves out the flush, for what is written again
    within a minute or is a mere convenience."""
    arriving = path.with_name(path.name + ARRIVING)
    try:
        arriving.touch(mode)
        arriving.write_text(text)
        if durably:
            rename_durably(arriving, path)
        else:
            arriving.replace(path)
    except OSError:
        with suppress(OSError):
            arriving.unlink(missing_ok=True)  # a full disk keeps no half
        raise


def append_line(path: Path, line: str, *, keep: int) -> None:
    """Given a line of a history, add it in one step, as the last of at most `keep` lines."""
    lines = path.read_text().splitlines() if path.is_file() else []
    write_atomically(path, "\n".join([*lines[-keep + 1 :], line]) + "\n")


def remove_database(path: Path) -> None:
    """Remove a database file of our own making and those companions that are there."""
    for suffix in ("", *DATABASE_COMPANIONS):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def staging_path(database: Path) -> Path:
    """Return where a first fill sets whole sessions aside; they belong to the database as it is,
    and to no restored one."""
    return database.with_name(database.name + ".staging")


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, by device and inode, so that links do not deceive;
    False when either is missing."""
    return one.exists() and other.exists() and one.samefile(other)


def free_bytes(directory: Path) -> int:
    """Return what an ordinary user may still write at `directory`, which need not exist."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def verify_space(directory: Path, needed_bytes: int, purpose: str) -> None:
    """Raise SpaceError with the number that is missing."""
    free = free_bytes(directory)
    if free < needed_bytes:
        raise SpaceError(
            f"{purpose} needs {needed_bytes:,} bytes in {directory}; {free:,} are free, "
            f"{needed_bytes - free:,} are missing",
            missing_bytes=needed_bytes - free,
            next_step="free that much on this disk, or choose another folder",
        )


@contextmanager
def exclusive_lock(path: Path, purpose: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold `path` for this process; the system lets go of it when the process dies, however it
    dies.

    Raise BusyError with the holder's process id when another process still has it after
    `wait_seconds`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        wait_for_lock(descriptor, path, purpose, time.monotonic() + wait_seconds)
        # The lock holds without the number, which a full disk does not take.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # The file stays: removing it would let two processes hold two files of one name.
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether a process holds this lock; looking takes it for no longer than a moment."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)

    return False


def wait_for_lock(descriptor: int, path: Path, purpose: str, deadline: float) -> None:
    """Lock an open file. Raise BusyError with the holder's process id at a monotonic `deadline`."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise BusyError(
                    f"{purpose} is already running (process {holder}, lock {path})",
                    next_step="wait for it to end",
                ) from None
            time.sleep(0.1)


def hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it. Folders that lost their owner's permissions are
    opened first; a missing one is fine."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return

    path.chmod(0o700)
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            remove_tree(Path(entry.path))
        else:
            Path(entry.path).unlink(missing_ok=True)
    path.rmdir()
