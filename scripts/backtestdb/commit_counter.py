"""Count the commits of all programs to one database: none is to go unseen."""

import os
import sqlite3
import sys
from pathlib import Path

# https://www.sqlite.org/fileformat2.html#file_change_counter
CHANGE_COUNTER = (24, "big")
# iChange of https://www.sqlite.org/walformat.html#the_wal_index_file_format, in the byte order of
# this machine.
TRANSACTIONS_IN_INDEX = (8, sys.byteorder)
NUMBER_BYTES = 4


class CommitCounter:
    """With a rollback journal every commit counts up a number in the file's header; under WAL one
    in the -shm.

    It holds descriptors of both: make it before this process opens the database through SQLite, and
    close it after the last connection, because closing one drops SQLite's locks.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        self.header = os.open(database, os.O_RDONLY)
        self.index: int | None = None

    def follow(self, observer: sqlite3.Connection) -> None:
        """Find out where this database counts. `observer` stays open as long as numbers are read:
        then a log and its index stay too."""
        if observer.execute("PRAGMA main.journal_mode").fetchone()[0] == "wal":
            observer.execute("PRAGMA main.user_version").fetchone()
            self.index = os.open(f"{self.database}-shm", os.O_RDONLY)

    def read(self) -> int:
        """Return the number now; it grows by one with every commit."""
        where, (offset, order) = (
            (self.header, CHANGE_COUNTER)
            if self.index is None
            else (self.index, TRANSACTIONS_IN_INDEX)
        )
        return int.from_bytes(os.pread(where, NUMBER_BYTES, offset), order)  # type: ignore[arg-type]

    def close(self) -> None:
        for descriptor in (self.header, self.index):
            if descriptor is not None:
                os.close(descriptor)
