"""A small database, read page by page: for the rules that a salvage goes by."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backtestdb.database import connect
from backtestdb.salvage.objects import Schema, load_live_schema
from backtestdb.salvage.pages import PageFile, open_pages
from backtestdb.salvage.shapes import Shape, describe_table
from backtestdb.salvage.sources import Described, TableSource, describe_tables, find_source
from small_database import make_small_database


def shape_of(sql: str, table: str = "t") -> Shape:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(sql)
        return describe_table(connection, table)


def load_schema(file: PageFile) -> Schema:
    return load_live_schema(file, [], first_page_is_lost=False)


def described(file: PageFile, table: str = "t") -> Described:
    return describe_tables(load_schema(file))[0][table]


def source_of(file: PageFile, table: str = "t") -> TableSource:
    """As a salvage finds it whose damage lies elsewhere."""
    return find_source(file, described(file, table), None)


@contextmanager
def opened_source(path: Path, table: str = "t") -> Iterator[tuple[PageFile, TableSource]]:
    with open_pages(path) as file:
        yield file, source_of(file, table)


@contextmanager
def opened_target(path: Path, sql: str, saved: Path | None = None) -> Iterator[sqlite3.Connection]:
    """A new database with the tables that `sql` makes, and the backup `saved` attached."""
    make_small_database(path, sql)
    with closing(connect(path)) as target:
        target.execute("PRAGMA synchronous = OFF")
        if saved:
            target.execute("ATTACH ? AS saved", (str(saved),))
        yield target


@contextmanager
def opened_saved(path: Path) -> Iterator[sqlite3.Connection]:
    """A backup as a salvage opens it."""
    with closing(connect(path, read_only=True)) as saved:
        saved.text_factory = bytearray
        yield saved
