"""A database of a few tables, made by SQL; its pages, and zeros in their place."""

import sqlite3
from contextlib import closing
from pathlib import Path


def make_small_database(path: Path, sql: str) -> Path:
    """A new database, made by these statements."""
    assert not path.exists()
    return run_sql(path, sql)


def run_sql(path: Path, sql: str) -> Path:
    """In one transaction, of which nothing is flushed."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(f"PRAGMA synchronous = OFF; BEGIN; {sql} COMMIT;")
    return path


def pages_of(path: Path, name: str, kind: str = "%") -> list[int]:
    """The pages of a table or an index, as SQLite says: leaf, internal and overflow."""
    query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype LIKE ? ORDER BY path"
    with closing(sqlite3.connect(path)) as database:
        return [page for (page,) in database.execute(query, (name, kind))]


def zero(path: Path, *pages: int) -> None:
    """Put zeros in the place of these pages of a database whose header can be read."""
    with path.open("r+b") as file:
        file.seek(16)
        page_size = int.from_bytes(file.read(2))
        assert page_size, f"{path} has no page size in its header"
        for page in pages:
            file.seek((page - 1) * page_size)
            file.write(bytes(page_size))
