"""Look into a live database without leaving a trace: no file is made, no writer waits."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote as quote_url

from backtestdb.database import Connection, connect
from backtestdb.files import DATABASE_COMPANIONS

BUSY_SECONDS = 2.0
Found = TypeVar("Found")
Reader = Callable[[Path, Callable[[sqlite3.Connection], Found]], Found]


def read_untouched(
    path: Path, look: Callable[[sqlite3.Connection], Found], when_busy: Reader[Found] | None = None
) -> Found:
    """Return what `look`, which may run twice, finds in the database at `path`, without a trace
    beside the file. `when_busy`: how to look while a program writes; by default, through an
    ordinary read-only connection. For processes that have no other connection to the file: closing
    this one drops their locks."""
    # A read-only connection to a resting WAL database makes -wal and -shm beside it and leaves them
    # there (SQLite 3.40), and one to a database with a rollback journal makes writers wait. So the
    # file is read as if it could not change (immutable, no locks), and compared afterwards.
    if not busy_companions(path):
        before = mark_of(path)
        try:
            with closing(open_immutable(path)) as connection:
                found = look(connection)
        except sqlite3.Error:
            if mark_of(path) == before:
                raise
        else:
            if mark_of(path) == before:
                return found

    return (when_busy or read_shared)(path, look)


def read_shared(path: Path, look: Callable[[sqlite3.Connection], Found]) -> Found:
    """Return what `look` finds, read-only, for a process with other connections."""
    with closing(connect(path, read_only=True, timeout_seconds=BUSY_SECONDS)) as connection:
        return look(connection)


def open_immutable(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote_url(str(path))}?mode=ro&immutable=1",
        uri=True,
        isolation_level=None,
        factory=Connection,
    )


def busy_companions(path: Path) -> list[str]:
    """Return a -wal and -journal that hold something: the file alone is not the database."""
    companions = [Path(f"{path}{suffix}") for suffix in DATABASE_COMPANIONS if suffix != "-shm"]
    return [companion.name for companion in companions if size_of(companion)]


def mark_of(path: Path) -> tuple[object, ...]:
    """Return a value that differs as soon as any program has begun to write."""
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, busy_companions(path)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
