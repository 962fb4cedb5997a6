"""Hashes of what tables hold, so that two databases can be compared without having both.

The hash of a table is the SHA-256 of its column names and its rows in the order of the rowid or
primary key. Each value goes into it with its type and length (`encode_row`), so numbers, text and
blobs of the same look differ; generated columns are left out. The same rows give the same hash on
every platform, after every backup and restore.

Hashes of this form begin with "2:". Those of the first form (each row as Python writes a tuple) are
bare hexadecimal; they are still computed where a manifest holds them, for as long as such backups
are kept.
"""

import hashlib
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from backtestdb.database import (
    column_names,
    names_as_stored,
    ordinary_table_names,
    quote,
    reading_text,
)
from backtestdb.schema import tables_to_keep
from backtestdb.table_copy import has_sequences, rowid_name

MARK = "2:"
# Rows are joined up to this size before they are hashed. A larger one stands alone, so few are in
# memory at once: 500 rows at once took 1.5 to 3.3 GB with charts of 1 MB.
JOINED_BYTES = 1 << 18
LETTERS: dict[type, bytes] = {
    type(None): b"n",
    int: b"i",
    float: b"f",
    bytearray: b"t",
    bytes: b"b",
}


@dataclass(frozen=True)
class Contents:
    """`bytes` is what went through the hashes, about the size of the tables."""

    tables: dict[str, str]
    structure: str
    bytes: int


def hash_contents(
    connection: sqlite3.Connection, like: Mapping[str, str] | None = None
) -> Contents:
    """Return the hashes of every table that no download brings back. `like`: the hashes that these
    will be compared with; they decide about the form of each table's hash."""
    ordinary = set(ordinary_table_names(connection))
    hashes, total = {}, 0
    for table in tables_to_keep(connection):
        if table in ordinary:
            hashes[table], size = hash_table(connection, table, like=(like or {}).get(table, MARK))
            total += size
    return Contents(hashes, hash_structure(connection), total)


def hash_table(
    connection: sqlite3.Connection, table: str, schema: str = "main", *, like: str = MARK
) -> tuple[str, int]:
    """Return the hash and how many bytes went into it, in the form of the hash `like`."""
    columns = column_names(connection, table, schema)
    order = rowid_name(connection, table, schema)
    query = f"SELECT {', '.join(map(quote, columns))} FROM {schema}.{quote(table)}"
    if order:
        query += f" ORDER BY {order[0]}"

    digest, size = hashlib.sha256(repr(columns).encode()), 0
    encode = encode_row if like.startswith(MARK) else encode_row_as_tuple
    waiting: list[bytes | bytearray] = []
    waiting_bytes = 0
    # Text that is not UTF-8 has a hash too, and as bytearray it differs from a blob of these bytes.
    with reading_text(connection, bytearray):
        for row in connection.execute(query):
            waiting_bytes += encode(row, waiting)
            if waiting_bytes >= JOINED_BYTES:
                digest.update(b"".join(waiting))
                size, waiting_bytes = size + waiting_bytes, 0
                waiting.clear()

    digest.update(b"".join(waiting))
    mark = MARK if like.startswith(MARK) else ""
    return mark + digest.hexdigest(), size + waiting_bytes


def encode_row(row: Sequence[Any], waiting: list[bytes | bytearray]) -> int:
    """Append a row to `waiting`: a letter for the type of each value, then its numbers and the
    lengths of its texts and blobs in eight bytes each, then the texts and blobs; return how many
    bytes. Text comes as bytearray, a blob as bytes (`hash_table`)."""
    layout = layout_of(tuple(map(type, row)))
    long_values = [row[place] for place in layout.long_places]
    numbers = layout.numbers.pack(
        *[row[place] for place in layout.number_places], *map(len, long_values)
    )
    waiting.append(layout.letters + numbers)
    waiting += long_values
    return layout.fixed_bytes + sum(map(len, long_values))


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """How rows whose values have these types are written. Tables have few such combinations."""

    letters: bytes
    numbers: struct.Struct
    number_places: tuple[int, ...]
    long_places: tuple[int, ...]
    fixed_bytes: int


@cache
def layout_of(types: tuple[type, ...]) -> RowLayout:
    """Given the types of a row's values, return how such rows go into the digest."""
    letters = b"".join(LETTERS[kind] for kind in types) + b";"
    number_places = tuple(place for place, kind in enumerate(types) if kind in {int, float})
    long_places = tuple(place for place, kind in enumerate(types) if kind in {bytearray, bytes})
    shape = "".join("q" if types[place] is int else "d" for place in number_places) + "q" * len(
        long_places
    )
    numbers = struct.Struct("<" + shape)

    return RowLayout(
        letters=letters,
        numbers=numbers,
        number_places=number_places,
        long_places=long_places,
        fixed_bytes=len(letters) + numbers.size,
    )


def encode_row_as_tuple(row: Sequence[Any], waiting: list[bytes | bytearray]) -> int:
    """Return the first form of a row: as Python writes a tuple."""
    encoded = f"{row!r}\n".encode()
    waiting.append(encoded)
    return len(encoded)


def header_numbers(connection: sqlite3.Connection) -> list[int]:
    """Return `user_version`, where programs count migrations, and `application_id` if set."""
    version, application = (
        int(connection.execute(f"PRAGMA main.{name}").fetchone()[0])
        for name in ("user_version", "application_id")
    )
    return [version, application] if application else [version]


def hash_structure(connection: sqlite3.Connection) -> str:
    """Return the hash of everything else that the small backup holds: the text of tables, indexes,
    triggers and views, the numbers that AUTOINCREMENT gave out, the numbers in the header."""
    kept = set(tables_to_keep(connection))
    with names_as_stored(connection):
        query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
        rows = connection.execute(query).fetchall()

    parts: list[object] = [row for row in rows if row[2] in kept or row[0] in {"view", "trigger"}]
    if has_sequences(connection, "main"):
        sequences = connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name")
        parts += [row for row in sequences if row[0] in kept]
    parts += header_numbers(connection)

    return hashlib.sha256(repr(parts).encode()).hexdigest()
