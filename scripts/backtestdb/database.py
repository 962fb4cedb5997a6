"""Connections to SQLite, and the questions that every part of the project asks of a database file.

Never open() a database file in a process that has it open through SQLite: POSIX drops all of the
process's locks on a file when any descriptor of it is closed.
"""

import errno
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote as quote_url

from backtestdb.errors import DatabaseFileError, VerificationError
from backtestdb.newer_sqlite import was_written_by_newer_sqlite
from backtestdb.stand_ins import add_stand_in

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
FileState = Literal["missing", "empty", "database", "too_new", "damaged"]
BUSY_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
UNREADABLE_SCHEMA = "malformed database schema"
UNKNOWN_FORMAT = "unsupported file format"

ROWS_PER_STATEMENT = 200
FINDINGS_AT_MOST = 1000
BROKEN_RULE = re.compile(r"(NULL|NUMERIC|TEXT|non-\w+) value in |CHECK constraint failed in ")
UNREADABLE_DISK = f"code={sqlite3.SQLITE_IOERR}"


class Connection(sqlite3.Connection):
    """SQLite's own words about a damaged schema quote it, and what they quote need not be UTF-8:
    Python then raises UnicodeDecodeError and hides what SQLite said. Here that is an error of
    SQLite like any other."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(sql, parameters)
        except UnicodeDecodeError as error:
            raise make_sqlite_error(error) from None

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        try:
            return super().executemany(sql, parameters)
        except UnicodeDecodeError as error:
            raise make_sqlite_error(error) from None

    def executescript(self, sql: str, /) -> sqlite3.Cursor:
        try:
            return super().executescript(sql)
        except UnicodeDecodeError as error:
            raise make_sqlite_error(error) from None


def make_sqlite_error(error: UnicodeDecodeError) -> sqlite3.DatabaseError:
    """Given what Python raised over the bytes of a message, return the error that SQLite meant."""
    message = bytes(error.object).decode(errors="backslashreplace")
    meant = sqlite3.DatabaseError(message)
    is_damage = message.startswith(UNREADABLE_SCHEMA)
    meant.sqlite_errorcode = sqlite3.SQLITE_CORRUPT if is_damage else sqlite3.SQLITE_ERROR
    return meant


def connect(
    path: Path,
    *,
    create: bool = False,
    read_only: bool = False,
    lenient: bool = False,
    timeout_seconds: float = 30.0,
) -> sqlite3.Connection:
    """Open a database in autocommit mode, so that transactions begin and end where the code says
    so.

    A missing file is an error unless `create`. `lenient` also opens a database with tables, views
    or triggers whose text this SQLite cannot read: it does not see those. That is for reading and
    for copying pages; a writer would leave their indexes behind. Raise DatabaseFileError when the
    file cannot be opened.
    """
    mode = "ro" if read_only else "rwc" if create else "rw"
    if not create and not path.is_file():
        raise DatabaseFileError(f"no database at {path}", next_step="make restore")

    try:
        connection = sqlite3.connect(
            f"file:{quote_url(str(path))}?mode={mode}",
            uri=True,
            timeout=timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if lenient:
            skip_unreadable_schema(connection)
    except sqlite3.OperationalError as error:
        raise DatabaseFileError(f"cannot open the database {path}: {error}") from error

    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, mode: str = "IMMEDIATE") -> Iterator[None]:
    """Begin and end a transaction, all or nothing: COMMIT at the end, ROLLBACK on any exception."""
    connection.execute(f"BEGIN {mode}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; 0 for an error of the Python module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Return a read-only connection; a lenient one to a database that a newer SQLite wrote, and to
    no other. Raise sqlite3.Error when the schema cannot be read for another reason."""
    connection = connect(path, read_only=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.DatabaseError as error:
        is_schema = str(error).startswith(UNREADABLE_SCHEMA)
        if is_schema:
            skip_unreadable_schema(connection)
        if not is_schema or not was_written_by_newer_sqlite(connection, path):
            connection.close()
            raise

    return connection


def skip_unreadable_schema(connection: sqlite3.Connection) -> None:
    """Leave out, from now on, what this SQLite cannot read of the schema, in attached databases
    too. `writable_schema` does that: https://www.sqlite.org/pragma.html#pragma_writable_schema."""
    connection.execute("PRAGMA writable_schema = ON")
    # The first statement may still fail, the next sees the rest.
    with suppress(sqlite3.DatabaseError):
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def look_at_file(path: Path, *, timeout_seconds: float = 30.0) -> FileState:
    """Return what is at `path`: nothing, a file of no bytes, a database, or something that is not
    one any more.

    "damaged" means a wrong header, or a schema that SQLite cannot read. "too_new" is one that this
    SQLite cannot read and that a newer one wrote. A busy database is a database. Call it before
    this process connects to the file. Raise DatabaseFileError for a folder and for a symbolic link
    that leads nowhere.
    """
    if path.is_dir():
        raise DatabaseFileError(
            f"{path} is a folder, not a database", next_step="change DATABASE_PATH"
        )

    if not path.exists():
        verify_no_dangling_link(path)
        return "missing"
    if path.stat().st_size == 0:
        return "empty"

    # SQLite would remove the -wal beside a file that is no database, and with it the last commits
    # that a salvage could find.
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if not header.startswith(MAGIC):
        return "damaged"

    with closing(connect(path, timeout_seconds=timeout_seconds)) as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.DatabaseError as error:
            if str(error).startswith(UNREADABLE_SCHEMA):
                skip_unreadable_schema(connection)
                return "too_new" if was_written_by_newer_sqlite(connection, path) else "damaged"
            if primary_code(error) in DAMAGE_CODES or UNKNOWN_FORMAT in str(error):
                return "damaged"
            if primary_code(error) not in BUSY_CODES:
                raise

    return "database" if is_writable_format(path, header) else "damaged"


def verify_no_dangling_link(path: Path) -> None:
    """Raise DatabaseFileError for a link whose disk is not there: that is no empty place."""
    if path.is_symlink() and not path.exists():
        raise DatabaseFileError(
            f"{path} is a symbolic link to {path.readlink()}, and nothing is there",
            next_step="connect the disk that it leads to, or change DATABASE_PATH",
        )


def is_writable_format(path: Path, header: bytes) -> bool:
    """Return whether SQLite can write the file. Byte 18 above 2 makes SQLite read-only, for a
    format that is yet to come: no SQLite has written that. A log may hold a better first page."""
    log = Path(f"{path}-wal")
    return header[18] <= 2 or (log.is_file() and log.stat().st_size > 0)


def quote(name: str) -> str:
    """Return a table or column name as SQL wants it."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def reading_text(connection: sqlite3.Connection, make: Callable[[bytes], object]) -> Iterator[None]:
    """Give text values as `make` makes them of their bytes, within the block."""
    before = connection.text_factory
    connection.text_factory = make
    try:
        yield
    finally:
        connection.text_factory = before


def names_as_stored(connection: sqlite3.Connection) -> AbstractContextManager[None]:
    """Read also names that are not UTF-8, as surrogates; SQL from Python cannot hold them."""
    return reading_text(connection, lambda data: data.decode("utf-8", "surrogateescape"))


def table_names(connection: sqlite3.Connection, schema: str = "main") -> list[str]:
    """Return the tables of a `schema` (main or attached) without SQLite's own, as created."""
    with names_as_stored(connection):
        rows = connection.execute(
            f"SELECT name FROM {schema}.sqlite_schema"
            " WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        )
        return [name for (name,) in rows]


def virtual_table_names(connection: sqlite3.Connection, schema: str = "main") -> set[str]:
    """Return tables that a module shows, such as a full-text index. The module may be missing: do
    not read them."""
    with names_as_stored(connection):
        rows = connection.execute(
            f"SELECT name FROM {schema}.sqlite_schema WHERE type = 'table' AND rootpage = 0"
        )
        return {name for (name,) in rows}


def ordinary_table_names(connection: sqlite3.Connection, schema: str = "main") -> list[str]:
    """Return all tables but the virtual ones, whose content lies in ordinary ones, and but those
    that a newer SQLite made and this one cannot read."""
    hidden = virtual_table_names(connection, schema) | set(
        unreadable_table_names(connection, schema)
    )
    return [table for table in table_names(connection, schema) if table not in hidden]


def unreadable_table_names(connection: sqlite3.Connection, schema: str = "main") -> list[str]:
    """Return tables that the schema lists and that cannot be read here: a lenient connection does
    not see them (see connect), or their name is not UTF-8."""
    with names_as_stored(connection):
        seen = connection.execute(
            "SELECT lower(name) FROM pragma_table_list WHERE schema = ?", (schema,)
        )
        names = {name for (name,) in seen if name.encode(errors="ignore").decode() == name}
    return [table for table in table_names(connection, schema) if table.lower() not in names]


def column_names(connection: sqlite3.Connection, table: str, schema: str = "main") -> list[str]:
    """Return columns that can be written: generated ones are left out."""
    rows = connection.execute(f"PRAGMA {schema}.table_xinfo({quote(table)})")
    return [row[1] for row in rows if row[6] == 0]


def count_rows(
    connection: sqlite3.Connection, tables: list[str], schema: str = "main"
) -> dict[str, int]:
    """Return rows per table."""
    return {
        table: connection.execute(f"SELECT count(*) FROM {schema}.{quote(table)}").fetchone()[0]
        for table in tables
    }


def verify_integrity(
    connection: sqlite3.Connection, *, full: bool = False, schema: str = "main"
) -> list[str]:
    """Raise VerificationError with SQLite's first finding; return those about rows that break a
    rule of their table, such as a NULL in a NOT NULL column: the platform may have stored them so,
    and they are no damage.

    `full` adds the comparison of every index with its table. Where functions or collations of the
    platform are needed for that, it is left out. Raise OSError when the disk cannot be read: that
    says nothing about the file.
    """
    check = "integrity_check" if full else "quick_check"
    if full:
        # The default of 2 MB is too little for indexes. 16 MB: a backup command has 64 MB in all,
        # and the system keeps the pages that do not fit.
        connection.execute(f"PRAGMA {schema}.cache_size = -16384")

    try:
        findings = find_faults(connection, check, schema)
    except sqlite3.DatabaseError as error:
        if primary_code(error) not in DAMAGE_CODES:
            raise
        findings = [str(error)]

    damage = next((finding for finding in findings if not BROKEN_RULE.match(finding)), "")
    if UNREADABLE_DISK in damage:
        raise OSError(errno.EIO, f"{check} could not read the disk: {damage}")
    if damage:
        raise VerificationError(f"{check} found: {damage}")

    return findings


def find_faults(connection: sqlite3.Connection, check: str, schema: str) -> list[str]:
    """Return SQLite's findings, empty when there are none."""
    # Pages of tables that cannot be seen would be called "never used": then each table is checked
    # alone.
    is_partial = bool(unreadable_table_names(connection, schema))
    parts = (
        [quote(table) for table in ordinary_table_names(connection, schema)] if is_partial else []
    )
    statements = [f"PRAGMA {schema}.{{check}}({part})" for part in parts or [str(FINDINGS_AT_MOST)]]

    while True:
        try:
            rows = [
                row for one in statements for row in connection.execute(one.format(check=check))
            ]
        except sqlite3.OperationalError as error:
            if not add_stand_in(connection, error):
                raise
            # An index that was made with the true function does not agree with a stand-in.
            check = "quick_check"
        else:
            return [finding for (finding,) in rows if finding != "ok"]


def count_foreign_key_violations(connection: sqlite3.Connection, schema: str = "main") -> int:
    """Count rows whose parent is missing: the platform's databases may hold some."""
    return sum(1 for _ in connection.execute(f"PRAGMA {schema}.foreign_key_check"))


def save_rows(
    connection: sqlite3.Connection, insert: str, conflict: str, columns: Sequence[list[Any]]
) -> None:
    """Insert equally long columns as rows, `ROWS_PER_STATEMENT` a statement: one and a half times
    as fast as a statement a row."""
    count, width = len(columns[0]), len(columns)
    one = f"({', '.join('?' * width)})"
    for first in range(0, count, ROWS_PER_STATEMENT):
        rows = min(ROWS_PER_STATEMENT, count - first)
        values: list[Any] = [None] * (rows * width)
        # By slices: no step in Python for each value.
        for place, column in enumerate(columns):
            values[place::width] = column[first : first + rows]
        connection.execute(f"{insert} VALUES {', '.join([one] * rows)} {conflict}", values)
