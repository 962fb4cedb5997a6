"""Whether anything was committed to a live database, for microseconds a look."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from backtestdb.backups.unlocked_copy import cannot_be_opened
from backtestdb.database import connect
from backtestdb.errors import DatabaseFileError
from backtestdb.newer_sqlite import HEADER_BYTES, VERSION, load_versions_in_log


class Commits:
    """Whether anything was committed to a database, asked for microseconds. A file that was
    replaced, or that SQLite must keep off, is looked at from outside.

    The descriptor of the file is opened before the connection and closed after it, and nothing else
    in this process may open the file: closing any descriptor drops SQLite's locks on it.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        self.connection: sqlite3.Connection | None = None
        self.descriptor = -1
        self.files: tuple[object, ...] = ()
        self.seen: tuple[object, ...] | None = None

    def mark(self) -> tuple[object, ...]:
        """Return a value that differs after each commit of another program."""
        try:
            found = self.database.stat()
        except FileNotFoundError:
            self.forget()
            raise DatabaseFileError(
                f"there is no database at {self.database}", next_step="make restore-from-backup"
            ) from None

        if cannot_be_opened(self.database):
            return self.outside_mark(found)

        log = self.find_log()
        # Another log beside the same file is one that this connection does not see.
        files = (found.st_dev, found.st_ino, log.st_ino if log else 0)
        if self.connection is None or self.files != files:
            self.forget()
            self.descriptor = os.open(self.database, os.O_RDONLY)
            self.connection = connect(self.database)

        version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        log = self.find_log()  # the connection may just have made it
        self.files = (found.st_dev, found.st_ino, log.st_ino if log else 0)
        return (*self.files[:2], version)

    def writer_version(self) -> int | None:
        """Return the version of the SQLite that wrote the file; None if it is not open."""
        if self.descriptor < 0:
            return None
        log = self.database.with_name(self.database.name + "-wal")
        newest = int.from_bytes(os.pread(self.descriptor, HEADER_BYTES, 0)[VERSION])
        return max([newest, *load_versions_in_log(log)]) if log.is_file() else newest

    def find_log(self) -> os.stat_result | None:
        with suppress(FileNotFoundError):
            return self.database.with_name(self.database.name + "-wal").stat()
        return None

    def outside_mark(self, found: os.stat_result) -> tuple[object, ...]:
        log = self.find_log()
        return (
            *(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns),
            *((log.st_size, log.st_mtime_ns) if log else ()),
        )

    def forget(self) -> None:
        """Forget what was seen: after a failure the next look is the first one again."""
        if self.connection:
            self.connection.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.connection, self.descriptor, self.files, self.seen = None, -1, (), None
