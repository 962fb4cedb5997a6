"""Files that must survive a power cut: names with a time, flushing, free space, locks."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from backtestdb.errors import BusyError, SpaceError

DATABASE_COMPANIONS = ("-wal", "-shm", "-journal")


def make_stamp(now_local: datetime) -> str:
    """YYYY-MM-DD-HHmmss in local time: the middle of every backup's name."""
    return now_local.strftime("%Y-%m-%d-%H%M%S")


def fsync_file(path: Path) -> None:
    """Never for a database that this process has open: closing the descriptor drops SQLite's locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


fsync_directory = fsync_file


def rename_durably(source: Path, target: Path) -> None:
    """Flush `source`, give it its final name in one step, and flush the directory that holds the name."""
    fsync_file(source)
    source.replace(target)
    fsync_directory(target.parent)


def remove_database(path: Path) -> None:
    """Remove a database file of our own making with its companions; those that are missing are fine."""
    for suffix in ("", *DATABASE_COMPANIONS):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def same_file(one: Path, other: Path) -> bool:
    """By device and inode, so that links do not deceive; False when either is missing."""
    return one.exists() and other.exists() and one.samefile(other)


def free_bytes(directory: Path) -> int:
    """What an ordinary user may still write in the nearest existing folder above `directory`."""
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
            next_step="free that much on this disk, or choose another folder",
        )


@contextmanager
def exclusive_lock(path: Path, purpose: str) -> Iterator[None]:
    """Hold `path` for this process; the system lets go of it when the process dies, however it dies.

    Raise BusyError with the holder's process id when another process has it. The file stays: removing
    a lock file lets two processes hold two files of one name.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise BusyError(
                f"{purpose} is already running (process {holder}, lock {path})",
                next_step="wait for it to end",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
