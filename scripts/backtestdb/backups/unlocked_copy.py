"""Read a database whose locks cannot be relied on: from a private copy that was proven to be one
state.

On such a mount SQLite must not open the source at all. It would take the journal of a transaction
under way on the other side for the rest of a crash and roll it back, and at the end it would empty
and remove a -wal that is in use. So the files are copied as they are, and a copy counts only when
nothing changed across it.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backtestdb.console import Say
from backtestdb.database import connect, verify_integrity
from backtestdb.errors import BusyError, DatabaseFileError, VerificationError
from backtestdb.files import remove_database, verify_space
from backtestdb.mounts import carries_no_locks, mount_of

GIVE_UP_AFTER_SECONDS = 120.0
PAUSE_SECONDS = 0.2
# Times of change have steps of up to 10 ms: a change during the copy must not fall into the step of
# the mark.
MTIME_STEP_SECONDS = 0.05
HEADER_BYTES = 100
WAL_VERSION_AT = 18
COPIED = ("", "-wal")
ADVICE = (
    "stop the program that writes to the database for a moment, or let the host make the backups"
    " (make schedule-install there), or put writer and sidecar into containers on one named volume"
)
Mark = tuple[object, ...]


def cannot_be_opened(database: Path) -> bool:
    """Return whether SQLite has to keep off: no locks across this mount, or a read-only mount of a
    WAL database, which SQLite opens only while a -shm stands beside it."""
    mount = mount_of(database)
    return carries_no_locks(mount) or (
        mount is not None and mount.is_read_only and is_in_wal_mode(database)
    )


def is_in_wal_mode(database: Path) -> bool:
    try:
        with database.open("rb") as file:
            return file.read(HEADER_BYTES)[WAL_VERSION_AT : WAL_VERSION_AT + 1] == b"\x02"
    except OSError:
        return False


@contextmanager
def steady_copy(
    source: Path, copy: Path, *, say: Say, give_up_after_seconds: float
) -> Iterator[Path]:
    """Yield `copy`, a checked copy of one state of `source`, and remove it at the end.

    Raise BusyError with the advice that helps when `source` does not hold still in time.
    """
    if not source.is_file():
        raise DatabaseFileError(
            f"there is no database at {source}", next_step="check DATABASE_PATH"
        )

    verify_space(copy.parent, 2 * total_bytes(source), f"a private copy of {source}")
    say(
        f"SQLite must keep off the mount of {source}: reading from a private copy that is proven "
        "first"
    )

    try:
        copy_until_proven(source, copy, time.monotonic() + give_up_after_seconds)
        yield copy
    finally:
        remove_database(copy)


def total_bytes(source: Path) -> int:
    return sum(path.stat().st_size for path in parts(source, COPIED) if path.exists())


def parts(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in suffixes]


def copy_until_proven(source: Path, copy: Path, deadline: float) -> None:
    """Copy, and copy again, until the source did not change meanwhile. Raise BusyError when that
    has not happened by the monotonic time `deadline`."""
    attempts, reason = 0, ""
    while not attempts or time.monotonic() < deadline:
        if attempts:
            time.sleep(PAUSE_SECONDS)
        attempts += 1
        reason = try_to_copy(source, copy)
        if not reason:
            return

    raise BusyError(
        f"no steady copy of {source} in {attempts} attempts (last: {reason}); its mount carries "
        "no locks, "
        "so a backup cannot ask writers on the other side to wait",
        next_step=ADVICE,
    )


def try_to_copy(source: Path, copy: Path) -> str:
    """Return why this copy does not count, or an empty text."""
    before = read_mark(source)
    if before is None:
        return "a transaction is under way"

    time.sleep(MTIME_STEP_SECONDS)
    remove_database(copy)
    try:
        for old, new in zip(parts(source, COPIED), parts(copy, COPIED), strict=True):
            if old.exists():
                new.touch(0o600)
                shutil.copyfile(old, new)
    except FileNotFoundError:
        return "its -wal went away"

    if read_mark(source) != before:
        return "it changed meanwhile"
    return find_damage(copy)


def read_mark(source: Path) -> Mark | None:
    """Return everything that a commit, a rollback or a checkpoint changes; None while a rollback
    journal is in use."""
    main, wal, journal = parts(source, ("", "-wal", "-journal"))

    # Opened anew each time: network file systems look at the other side only then.
    with main.open("rb") as file:
        header = file.read(HEADER_BYTES)
        status = os.fstat(file.fileno())
    if is_in_use(journal):
        return None

    # The header's counter and the sizes are not enough: a transaction that is rolled back after it
    # wrote pages changes only the time, and a -wal that begins anew keeps its size.
    return (header, status.st_ino, status.st_size, status.st_mtime_ns, hash_if_there(wal))


def is_in_use(journal: Path) -> bool:
    """Return whether a transaction is under way: a finished one removes its journal, empties it or
    overwrites its header with zeros."""
    try:
        with journal.open("rb") as file:
            return any(file.read(HEADER_BYTES))
    except FileNotFoundError:
        return False


def hash_if_there(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def find_damage(copy: Path) -> str:
    try:
        with closing(connect(copy)) as connection:
            verify_integrity(connection)
    except (VerificationError, DatabaseFileError) as error:
        return str(error)
    return ""
