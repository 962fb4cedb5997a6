"""Hashes of what tables hold, so that two databases can be compared without having both.

The hash of a table is the SHA-256 of its column names and its rows in the order of the rowid or primary key,
each row as Python writes a tuple. Numbers, text and blobs of the same look differ; generated columns are
left out. The same rows give the same hash on every platform and after every backup and restore.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backtestdb.database import column_names, quote, table_names, virtual_table_names
from backtestdb.schema import schema_version, tables_to_keep
from backtestdb.table_copy import has_sequences, rowid_name

ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class Contents:
    """`bytes` is what went through the hashes, about the size of the tables."""

    tables: dict[str, str]
    structure: str
    bytes: int


def ordinary_tables(connection: sqlite3.Connection, schema: str = "main") -> list[str]:
    """All tables but the virtual ones, whose content lies in ordinary ones."""
    virtual = virtual_table_names(connection, schema)
    return [table for table in table_names(connection, schema) if table not in virtual]


def hash_contents(connection: sqlite3.Connection) -> Contents:
    """Of every table that no download brings back."""
    ordinary = set(ordinary_tables(connection))
    hashes, total = {}, 0
    for table in tables_to_keep(connection):
        if table in ordinary:
            hashes[table], size = hash_table(connection, table)
            total += size
    return Contents(hashes, hash_structure(connection), total)


def hash_table(connection: sqlite3.Connection, table: str, schema: str = "main") -> tuple[str, int]:
    """Return the hash and the number of bytes that went into it."""
    columns = column_names(connection, table, schema)
    order = rowid_name(connection, table, schema)
    query = f"SELECT {', '.join(map(quote, columns))} FROM {schema}.{quote(table)}"
    if order:
        query += f" ORDER BY {order[0]}"
    digest = hashlib.sha256(repr(columns).encode())
    size = 0
    with text_as_bytes(connection):
        cursor = connection.execute(query)
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            data = "\n".join(map(repr, rows)).encode()
            digest.update(data)
            digest.update(b"\n")
            size += len(data)
    return digest.hexdigest(), size


@contextmanager
def text_as_bytes(connection: sqlite3.Connection) -> Iterator[None]:
    """Text that is not UTF-8 has a hash too, and as bytearray it differs from a blob of the same bytes."""
    before = connection.text_factory
    connection.text_factory = bytearray
    try:
        yield
    finally:
        connection.text_factory = before


def hash_structure(connection: sqlite3.Connection) -> str:
    """Of everything else that the small backup holds: the text of tables, indexes, triggers and views, the
    numbers that AUTOINCREMENT gave out, the schema version."""
    kept = set(tables_to_keep(connection))
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
    parts: list[object] = [row for row in rows if row[2] in kept or row[0] in {"view", "trigger"}]
    if has_sequences(connection, "main"):
        sequences = connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name")
        parts += [row for row in sequences if row[0] in kept]
    parts.append(schema_version(connection))
    return hashlib.sha256(repr(parts).encode()).hexdigest()
