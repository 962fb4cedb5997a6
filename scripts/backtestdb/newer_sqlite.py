"""Tell a database that a newer SQLite wrote from a damaged one.

The platform brings an SQLite of its own (better-sqlite3 12: 3.53), this Python may have an older
one (Debian 12:
3.40.1). A view with `group_concat(name ORDER BY name)` is enough for the older one to call the
  schema malformed.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

HEADER_BYTES = 100
VERSION = slice(96, 100)
LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
KINDS = {"table", "index", "view", "trigger"}
TOO_NEW = (
    f"SQLite {sqlite3.sqlite_version} of this Python is too old to read all of it: a newer "
    "SQLite wrote to it"
)
NEWER_PYTHON = (
    "use a Python with a newer SQLite; make backup copies this database as it is meanwhile"
)


def was_written_by_newer_sqlite(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether a newer SQLite wrote last to this database, and every row of its schema is
    what one could have written: then nothing is damaged as far as can be seen. `connection` is a
    lenient one."""
    if not sqlite_version_number() < load_writer_version(path) < 4_000_000:
        return False
    try:
        rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
    except sqlite3.DatabaseError:
        return False
    return bool(rows) and all(is_schema_row(*row) for row in rows)


def is_schema_row(kind: object, name: object, table: object, sql: object) -> bool:
    """Return whether the text of this object is text at all."""
    is_statement = sql is None or (
        isinstance(sql, str)
        and sql[:7].upper() == "CREATE "
        and all(letter.isprintable() or letter in "\t\r\n" for letter in sql)
    )
    return kind in KINDS and isinstance(name, str) and isinstance(table, str) and is_statement


def sqlite_version_number() -> int:
    """Return this SQLite's version as it writes it into files: 3.40.1 is 3040001."""
    major, minor, patch = sqlite3.sqlite_version_info
    return major * 1_000_000 + minor * 1_000 + patch


def load_writer_version(path: Path) -> int:
    """Return the version of the SQLite that last changed page 1, in the file or in its log."""
    with path.open("rb") as file:
        newest = int.from_bytes(file.read(HEADER_BYTES)[VERSION])
    log = Path(f"{path}-wal")
    return max([newest, *load_versions_in_log(log)]) if log.is_file() else newest


def keep_writer_version(path: Path, version: int) -> None:
    """Write `version` into the header of a private copy that no program has open. SQLite puts its
    own version there when it copies, and then nothing would tell any more why it cannot read what
    it copied."""
    if version > sqlite_version_number():
        with path.open("r+b", buffering=0) as file:
            write_version(file.fileno(), version)


def write_version(descriptor: int, version: int) -> None:
    os.pwrite(descriptor, version.to_bytes(4), VERSION.start)


def load_versions_in_log(log: Path) -> Iterator[int]:
    """Yield the version in each first page of this run of the log:
    https://www.sqlite.org/fileformat2.html#walformat."""
    with log.open("rb") as file:
        header = file.read(LOG_HEADER_BYTES)
        page_size, salts = int.from_bytes(header[8:12]), header[16:24]
        while (
            len(frame := file.read(FRAME_HEADER_BYTES)) == FRAME_HEADER_BYTES
            and frame[8:16] == salts
        ):
            begin = file.read(HEADER_BYTES)
            if int.from_bytes(frame[:4]) == 1:
                yield int.from_bytes(begin[VERSION])
            file.seek(page_size - len(begin), os.SEEK_CUR)
