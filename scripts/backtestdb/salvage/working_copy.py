"""A copy of the damaged file to work in: what stands in its log or journal merged, its header
readable."""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from backtestdb.database import DAMAGE_CODES, MAGIC, Connection, primary_code
from backtestdb.errors import BusyError, DatabaseFileError
from backtestdb.files import remove_database, verify_space
from backtestdb.salvage.pages import HEADER_BYTES, TABLE_KINDS, parse_page_size

COPIED = ("", "-wal", "-journal")
ATTEMPTS = 3
WAL_MAGIC = {b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"}


def make_private_copy(database: Path, copy: Path, template: Path) -> bool:
    """Return whether page 1 is lost. Then the copy has the header of `template`, a database with
    the same settings (the newest backup), and an empty schema.

    The damaged file is read byte by byte and never opened as a database, which could change it or
    remove its log. Raise BusyError when another program goes on writing to it.
    """
    size = sum(path.stat().st_size for path in companions(database))
    verify_space(copy.parent, 2 * size, f"a copy of {database} to read from")
    for _ in range(ATTEMPTS):
        before = look(database)
        copy_files(database, copy)
        if look(database) == before:
            break
        time.sleep(0.2)
    else:
        raise BusyError(
            f"{database} changed each time that it was copied: another program is writing to it",
            next_step="stop that program, then start the same command again",
        )

    graft = None if has_sound_first_page(copy) else graft_first_page(copy, template)
    merge_log(copy)
    with copy.open("rb") as file:
        return graft is not None and file.read(len(graft))[HEADER_BYTES:] == graft[HEADER_BYTES:]


def companions(database: Path) -> list[Path]:
    """Return the file itself, its log and its journal, where they are there."""
    paths = [database.with_name(database.name + suffix) for suffix in COPIED]
    return [path for path in paths if path.is_file()]


def look(database: Path) -> list[tuple[str, int, int]]:
    return [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in companions(database)
    ]


def copy_files(database: Path, copy: Path) -> None:
    remove_database(copy)
    for path in companions(database):
        target = copy.with_name(copy.name + path.name.removeprefix(database.name))
        target.touch(0o600)
        shutil.copyfile(path, target)


def has_sound_first_page(copy: Path) -> bool:
    with copy.open("rb") as file:
        header = file.read(HEADER_BYTES + 1)
    if len(header) <= HEADER_BYTES or not header.startswith(MAGIC):
        return False
    page_size = parse_page_size(header)
    is_power = 512 <= page_size <= 65536 and page_size & (page_size - 1) == 0
    return is_power and page_size <= copy.stat().st_size and header[HEADER_BYTES] in TABLE_KINDS


def graft_first_page(copy: Path, template: Path) -> bytes:
    """Write a first page into the copy, with which SQLite can merge a log or a journal; return
    it."""
    with template.open("rb") as file:
        header = bytearray(file.read(HEADER_BYTES))

    log = copy.with_name(copy.name + "-wal")
    page_size = page_size_of_log(log) or parse_page_size(bytes(header))
    pages = max(copy.stat().st_size // page_size, 1)

    header[16:18] = (page_size % 65535).to_bytes(2)  # the format writes 65536 as 1
    header[18:20] = b"\2\2" if log.exists() else b"\1\1"
    header[28:32] = pages.to_bytes(4)
    header[32:40] = bytes(8)
    header[92:96] = header[24:28]

    usable = page_size - header[20]
    empty_leaf = b"\x0d\0\0\0\0" + (usable % 65536).to_bytes(2) + b"\0"
    page = bytes(header) + empty_leaf + bytes(page_size - HEADER_BYTES - len(empty_leaf))

    with copy.open("r+b") as file:
        file.write(page)
        file.truncate(max(copy.stat().st_size, page_size))

    return page


def page_size_of_log(log: Path) -> int:
    if not log.is_file():
        return 0
    with log.open("rb") as file:
        header = file.read(32)
    return int.from_bytes(header[8:12]) if header[:4] in WAL_MAGIC else 0


def merge_log(copy: Path) -> None:
    """Merge the log into the file."""
    try:
        # SQLite plays a journal back when it first reads, and a log into the file when it is
        # closed; whether it understands the schema does not matter for either.
        with closing(sqlite3.connect(copy, factory=Connection)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.DatabaseError as error:
        if primary_code(error) not in DAMAGE_CODES | {sqlite3.SQLITE_ERROR}:
            raise

    log = copy.with_name(copy.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise DatabaseFileError(
            f"the log of the damaged database could not be merged into the copy {copy}",
            next_step="see that this disk has room, then start the same command again",
        )
