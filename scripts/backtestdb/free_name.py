"""Give a new database file a name that is free, and take it from a file that is no database any
more.

A supervisor may start the platform at any moment, and SQLite makes the file that it does not find.
So nothing is renamed over a name: a link is made, which fails when the name is taken. A file that
stands there is moved aside only while no program has it open.
"""

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from backtestdb.database import DAMAGE_CODES, HEADER_BYTES, MAGIC, connect, primary_code
from backtestdb.errors import BusyError, VerificationError
from backtestdb.files import DATABASE_COMPANIONS, choose_free_names, fsync_directory, same_file
from backtestdb.holders import name_holders
from backtestdb.names import KEPT, kept_path
from backtestdb.outline import find_differences, read_outline

# SQLite locks these bytes: https://www.sqlite.org/src/file/src/os.h, PENDING_BYTE and what follows.
LOCK_BYTES_START, LOCK_BYTES = 0x40000000, 512
NO_LINKS_HERE = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
PAUSE_SECONDS = 0.1


class NameTakenError(Exception):
    """Another program made a file of this name meanwhile: look again at what is there."""


def companions_of(path: Path) -> list[Path]:
    """Return the -wal, -shm and -journal beside `path` that are there."""
    beside = [path.with_name(path.name + suffix) for suffix in DATABASE_COMPANIONS]
    return [companion for companion in beside if os.path.lexists(companion)]


def choose_kept_name(path: Path, now_local: datetime) -> Path:
    """Return `<path>.backup-STAMP`, with nothing beside it that would be taken for its log."""

    def names(stamp: str) -> list[Path]:
        kept = kept_path(path, stamp)
        return [kept, *(kept.with_name(kept.name + suffix) for suffix in DATABASE_COMPANIONS)]

    return choose_free_names(names, now_local)[0]


def move_aside(path: Path, kept_as: Path, *, timeout_seconds: float) -> Path:
    """Move a file that is no database to `kept_as`, with its -wal, -shm and -journal; return the
    name that it has now. Raise BusyError while it is in use.
    """
    # A kill between two renames leaves a part under an earlier name: the rest follows it.
    kept_as = find_unfinished_move(path) or kept_as

    with held_by_nobody(path, timeout_seconds):
        # The logs first: one that stayed behind would be played into the next file of this name.
        for part in (*companions_of(path), path):
            part.rename(kept_as.with_name(kept_as.name + part.name.removeprefix(path.name)))
        fsync_directory(path.parent)
    return kept_as


def find_unfinished_move(path: Path) -> Path | None:
    """Return the name that a killed run had begun to move `path` to."""
    prefix = f"{path.name}{KEPT}"
    for part in sorted(path.parent.iterdir()):
        for suffix in DATABASE_COMPANIONS:
            kept = part.with_name(part.name.removesuffix(suffix))
            # The log has the new name already, the file does not.
            if (
                part.name.startswith(prefix)
                and part.name.endswith(suffix)
                and not os.path.lexists(kept)
            ):
                return kept

    return None


@contextmanager
def held_by_nobody(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the bytes that SQLite locks. Raise BusyError when another program has the file open for
    longer than `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds

    with path.open("r+b") as file:
        while True:
            # A connection in WAL mode holds the lock as long as it is open, others only while they
            # read or write: those are seen where the system shows who has a file open.
            holders = name_holders(path) or []
            if take_lock(file.fileno()) and not holders:
                break

            if time.monotonic() > deadline:
                raise BusyError(
                    f"{path} is no database any more and was not moved away: "
                    f"{', '.join(holders) or 'another program'} has it open",
                    next_step="stop that program, then start the same command again",
                )
            time.sleep(PAUSE_SECONDS)
        yield


def take_lock(descriptor: int) -> bool:
    """Return whether this process could take SQLite's bytes; False while another program holds any
    of them."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_BYTES, LOCK_BYTES_START)
    except (BlockingIOError, PermissionError):
        return False
    return True


def take_free_name(arriving: Path, target: Path) -> None:
    """Give the closed, checked and flushed database `arriving` the name `target`, and prove it by
    opening that name. No program can write to it until it is proven. Raise NameTakenError when the
    name is not free, or when a -wal, -shm or -journal beside it would be played into the file;
    VerificationError when what is under the name is another file or holds something else."""
    with closing(connect(arriving, lenient=True)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        expected = read_outline(holder)
        if companions_of(target):
            raise NameTakenError

        link_or_reserve(arriving, target)
        if companions_of(target):
            target.unlink()
            raise NameTakenError

        fsync_directory(target.parent)
        with closing(connect(target, lenient=True)) as live:
            differences = find_differences(expected, read_outline(live))
        if differences or not same_file(arriving, target):
            what = "; ".join(differences) or "it is another file"
            raise VerificationError(f"{target} does not hold what was put there: {what}")

        arriving.unlink()
        holder.execute("ROLLBACK")


def link_or_reserve(arriving: Path, target: Path) -> None:
    """Give `arriving` the name `target` by a link. Where the file system has no links (exFAT), take
    the name with an empty file, into which SQLite then writes the content as into any live
    database."""
    try:
        os.link(arriving, target)
    except FileExistsError:
        raise NameTakenError from None
    except OSError as error:
        if error.errno not in NO_LINKS_HERE:
            raise
        with suppress(FileExistsError):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        raise NameTakenError from None


def move_stray_companions(target: Path, kept_as: Path) -> None:
    """Keep a log or journal without a database under a name that no database will ever have."""
    stray = kept_as.name.replace(KEPT, ".stray-")
    for part in companions_of(target):
        with suppress(FileNotFoundError):
            part.rename(part.with_name(stray + part.name.removeprefix(target.name)))
    fsync_directory(target.parent)


def has_known_format(header: bytes) -> bool:
    """Given a header, return whether its formats of file, schema and text are known
    (https://www.sqlite.org/fileformat2.html#the_database_header). A connection that has read
    another one cannot go on once the right one is there."""
    return (
        header[18] in {1, 2}
        and header[19] in {1, 2}
        and int.from_bytes(header[44:48]) <= 4
        and int.from_bytes(header[56:60]) <= 3
    )


def can_be_locked(path: Path) -> bool:
    """Return whether SQLite can still begin a transaction on it, whatever its tables look like:
    then new content can go in through SQLite, and nothing has to be renamed."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC) or not has_known_format(header):
        return False

    try:
        with closing(connect(path, lenient=True, timeout_seconds=0.0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.DatabaseError as error:
        return primary_code(error) not in DAMAGE_CODES

    return True
