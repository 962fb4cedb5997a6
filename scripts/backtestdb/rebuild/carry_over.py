"""What no download brings back goes from the old database into the new one."""

import sqlite3
from collections.abc import Callable

from backtestdb.database import (
    count_foreign_key_violations,
    count_rows,
    table_names,
    verify_integrity,
    virtual_table_names,
)
from backtestdb.errors import VerificationError
from backtestdb.schema import agents_table_was_renamed, migrate, tables_to_keep
from backtestdb.table_copy import carry_tables


def make_carry_over(carried: dict[str, int]) -> Callable[[sqlite3.Connection], None]:
    """Return the function that `replace_database` runs between the old content (schema main) and the new one
    (schema fresh), in one transaction; it leaves the rows per table in `carried`."""

    def carry_over(connection: sqlite3.Connection) -> None:
        carried.clear()
        carried.update(carry_tables(connection, tables_to_keep(connection)))
        if agents_table_was_renamed(connection) and "trading_agents" in table_names(connection, "fresh"):
            connection.execute("DROP TABLE fresh.trading_agents")
        migrate(connection, "fresh")
        verify_carried(connection)

    return carry_over


def verify_carried(connection: sqlite3.Connection) -> None:
    """Raise VerificationError when the new content is damaged, or has more rows without their parents than
    the old one had."""
    verify_integrity(connection, schema="fresh")
    before = count_foreign_key_violations(connection)
    after = count_foreign_key_violations(connection, "fresh")
    if after > before:
        raise VerificationError(
            f"the new database has {after} rows whose parent is missing, the old one {before}",
            next_step="the old database was not touched; keep it and report this",
        )


def describe_old_content(connection: sqlite3.Connection) -> dict[str, int]:
    """Rows of each table that would be carried over, where there are any. Raise VerificationError when the
    old database is damaged: better before hours of download than after them."""
    verify_integrity(connection)
    virtual = virtual_table_names(connection)
    tables = [table for table in tables_to_keep(connection) if table not in virtual]
    return {table: rows for table, rows in count_rows(connection, tables).items() if rows}
