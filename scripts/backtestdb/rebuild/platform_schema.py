"""The platform's own schema.sql: checked in a scratch database, then its tables go into a new one.

The tables of this project are those that the platform had in October 2025. A platform that moved on
meets them with CREATE … IF NOT EXISTS, finds them there, and misses its newer columns for good: so
it may bring its own.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from backtestdb.database import connect, table_names, transaction
from backtestdb.errors import SettingsError
from backtestdb.files import remove_database
from backtestdb.schema import MARKET_TABLES, split_statements
from backtestdb.table_copy import carry_tables

# What makes a schema does not take anything away, and reaches no other file. VACUUM INTO is an
# ATTACH to SQLite.
REFUSED_WORDS = re.compile(r"\s*(DROP|DELETE|ATTACH|DETACH|VACUUM)\b", re.IGNORECASE)
REFUSED_ACTIONS = {
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
    sqlite3.SQLITE_DROP_INDEX,
    sqlite3.SQLITE_DROP_TABLE,
    sqlite3.SQLITE_DROP_TRIGGER,
    sqlite3.SQLITE_DROP_VIEW,
    sqlite3.SQLITE_DROP_VTABLE,
}


def add_platform_tables(work: Path, schema_file: Path) -> list[str]:
    """Given the path of a new database with the market tables, and the platform's schema.sql, give
    the database every other table of that schema, with its indexes, views, triggers and first rows.
    Return their names. Raise SettingsError when the file cannot be read, holds a statement that is
    refused, or one that fails."""
    scratch = work.with_name(work.name + ".platform-schema")
    remove_database(scratch)
    try:
        run_schema(scratch, schema_file)
        return copy_tables(scratch, work)
    finally:
        remove_database(scratch)


def run_schema(scratch: Path, schema_file: Path) -> None:
    """Run every statement of the file in the new database `scratch`."""
    try:
        statements = split_statements(schema_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(
            f"PLATFORM_SCHEMA={schema_file} cannot be used: {error}",
            next_step="change PLATFORM_SCHEMA",
        ) from None

    with closing(connect(scratch, create=True)) as connection:
        connection.set_authorizer(authorize)
        for statement in statements:
            try:
                if REFUSED_WORDS.match(statement):
                    raise sqlite3.DatabaseError("only what creates and fills tables is run")
                connection.execute(statement)
            except sqlite3.Error as error:
                raise SettingsError(
                    f"PLATFORM_SCHEMA={schema_file}: {error}, in: "
                    f"{' '.join(statement.split())[:100]}",
                    next_step="name a schema.sql of CREATE and INSERT statements",
                ) from None
        connection.set_authorizer(None)
        if connection.in_transaction:
            connection.execute("COMMIT")


def authorize(action: int, *details: str | None) -> int:
    """Return SQLite's answer to a step of a statement; PRAGMAs are passed over."""
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_IGNORE
    takes_rows_away = action == sqlite3.SQLITE_DELETE and not str(details[0]).startswith("sqlite_")
    return (
        sqlite3.SQLITE_DENY if action in REFUSED_ACTIONS or takes_rows_away else sqlite3.SQLITE_OK
    )


def copy_tables(scratch: Path, work: Path) -> list[str]:
    with closing(connect(scratch)) as connection:
        wanted = [table for table in table_names(connection) if table not in MARKET_TABLES]
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH ? AS fresh", (str(work),))
        with transaction(connection):
            carry_tables(connection, wanted)
    return wanted
